"""Clips that the tests of models share."""

import numpy as np
import pytest

from tests.utils.small import tone, write


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return three clips: 16 kHz, 48 kHz stereo, and one of 25 s, longer than a CLAP's window."""
    folder = tmp_path_factory.mktemp("clips")
    stereo = np.stack([tone(1.0, 48000, 220)] * 2, axis=1)
    return [
        str(write(folder / "a.wav", tone(0.5))),
        str(write(folder / "b.wav", stereo, 48000)),
        str(write(folder / "c.wav", tone(25.0, 16000, 300))),
    ]
