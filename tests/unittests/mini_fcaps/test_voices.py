"""Settings of voices."""

import itertools
import random

import numpy as np
import pytest

from speechbrain_clsp.mini_fcaps.acoustics import median_pitch
from speechbrain_clsp.mini_fcaps.style import PITCH_HERTZ, SPREAD_SEMITONES
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer
from speechbrain_clsp.mini_fcaps.voices import MAX_SETTING, VOICES, draw_voice


@pytest.mark.parametrize("kind", VOICES)
def test_settings_rise_with_the_pitch_and_stay_in_range(kind):
    for voice in VOICES[kind]:
        found = [voice.settings(hertz, 2.0) for hertz in (1, 60, 100, 150, 250, 1000)]
        pitches = [pitch for pitch, _ in found]
        assert pitches == sorted(pitches) and pitches[0] == 0 and pitches[-1] == MAX_SETTING
        assert all(0 <= pitch_range <= MAX_SETTING for _, pitch_range in found)


@pytest.mark.parametrize("kind", ["male", "female"])
def test_every_pitch_has_voices_to_draw(kind):
    """Also where it changes; other voices would be off the pitch that captions state."""
    for one, other in itertools.product(PITCH_HERTZ[kind].values(), repeat=2):
        for spread in SPREAD_SEMITONES.values() if one == other else [SPREAD_SEMITONES["natural"]]:
            drawn = [
                draw_voice(kind, [*one, *other], spread[1], random.Random(seed))
                for seed in range(40)
            ]
            assert len({voice.variant for voice in drawn}) >= 4, (one, other, spread)


def test_formants_rise_with_the_vocal_tract_and_nothing_else_changes():
    voice = VOICES["male"][0]
    found = []
    for factor in (1.0, 1.15):
        scaled = voice.with_formants(factor)
        with Synthesizer() as synthesizer:
            wav = synthesizer.speak(
                "a year ago we all were away",
                "en-us+m3",
                200,
                *scaled.settings(110.0, 0.0),
                formants=scaled.formants,
            )
        frames = np.lib.stride_tricks.sliding_window_view(wav, 512)[::256] * np.hanning(512)
        power = np.abs(np.fft.rfft(frames)) ** 2
        log_hertz = np.log(np.linspace(0, 8000, 257)[1:])
        envelope = np.interp(np.linspace(6, 8.2, 400), log_hertz, np.log(power.mean(0)[1:]))
        found.append((len(wav), median_pitch(wav), envelope - envelope.mean()))
    (length, pitch, envelope), (other_length, other_pitch, other_envelope) = found
    assert other_length == pytest.approx(length, rel=0.04)
    assert other_pitch == pytest.approx(pitch, rel=0.02)
    shifts = np.arange(-60, 61)
    likeness = [
        np.corrcoef(envelope[60:-60], np.roll(other_envelope, -n)[60:-60])[0, 1] for n in shifts
    ]
    step = (8.2 - 6) / 399
    assert np.exp(shifts[np.argmax(likeness)] * step) == pytest.approx(1.15, abs=0.05)
