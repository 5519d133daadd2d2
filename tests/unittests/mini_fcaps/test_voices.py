"""Settings of voices."""

import pytest

from speechbrain_clsp.mini_fcaps.voices import MAX_SETTING, VOICES


@pytest.mark.parametrize("kind", VOICES)
def test_settings_rise_with_the_pitch_and_stay_in_range(kind):
    for voice in VOICES[kind]:
        found = [voice.settings(hertz, 2.0) for hertz in (1, 60, 100, 150, 250, 1000)]
        pitches = [pitch for pitch, _ in found]
        assert pitches == sorted(pitches) and pitches[0] == 0 and pitches[-1] == MAX_SETTING
        assert all(0 <= pitch_range <= MAX_SETTING for _, pitch_range in found)
