"""Measured levels against those that captions state."""

import pytest

from speechbrain_clsp.mini_fcaps.acoustics import claims, measure_acoustics
from speechbrain_clsp.mini_fcaps.corpus import manifest_row
from tests.utils.mini_fcaps import fraction, waveform


@pytest.mark.parametrize("attribute, least", [("loudness", 0.98), ("pitch", 0.98), ("rate", 0.75)])
def test_measured_levels_agree_with_captions(folder, clips, attribute, least):
    right, shifted = [], []
    for clip in clips:
        said = claims(manifest_row(clip, 1.0, 0)["fine_captions"][0]).get(attribute)
        if (
            said is None
            or clip.style.changes
            or (attribute == "pitch") > (clip.style.pitch is not None)
        ):
            continue
        found = measure_acoustics(waveform(folder, clip)).level(attribute, clip.style.kind)
        right.append(found == said)
        shifted.append(found == (said + 1) % 3)
    assert fraction(right) >= least
    assert fraction(shifted) <= 1 - least
