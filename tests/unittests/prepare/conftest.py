"""Recordings of a user."""

import pytest

from tests.utils.small import tone, write


@pytest.fixture
def folder(tmp_path):
    """Three files, one in a folder, one with a name that is not ASCII."""
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(("a.wav", "sub/a.flac", "naïve 漢.ogg")):
        write(tmp_path / name, tone(1.0 + i / 2, 24000, 100 + 50 * i), 24000)
    return tmp_path
