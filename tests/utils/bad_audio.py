"""Files that are named like audio and are not, or hold what no tower should get."""

from pathlib import Path

import numpy as np

from tests.utils.small import tone, write


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return name -> (path, pattern of the message)."""
    write(folder / "nan.wav", np.full(8000, np.nan, np.float32), subtype="FLOAT")
    write(folder / "inf.wav", np.full(8000, np.inf, np.float32), subtype="FLOAT")
    write(folder / "huge.wav", 1e20 * tone(), subtype="FLOAT")
    write(folder / "none.wav", np.zeros(0, np.float32))
    write(folder / "none44.wav", np.zeros((0, 2), np.float32), 44100)
    write(folder / "short.wav", np.zeros(800, np.float32))
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio")
    (folder / "text.raw").write_text("this is no audio")
    whole = write(folder / "whole.flac", tone()).read_bytes()
    (folder / "cut.flac").write_bytes(whole[:60])
    (folder / "text.mp3").write_text("this is no audio\n" * 100)
    slow = bytearray((folder / "short.wav").read_bytes())
    slow[24:28] = (1).to_bytes(4, "little")  # the header's sample rate
    (folder / "slow.wav").write_bytes(slow)
    (folder / "folder.wav").mkdir()
    patterns = {
        "nan.wav": "NaN",
        "inf.wav": "infinite",
        "huge.wav": "beyond",
        "none.wav": "no samples",
        "none44.wav": "no samples",
        "short.wav": "at least 0.1 s",
        "empty.wav": "empty",
        "text.wav": "cannot be read as audio",
        "text.raw": "cannot be read as audio",
        "text.mp3": "cannot be read as audio",
        "cut.flac": "cut.flac",
        "slow.wav": "1 Hz",
        "folder.wav": "is a folder",
    }
    return {name: (folder / name, pattern) for name, pattern in patterns.items()}
