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


FOREIGN = {  # the first bytes of what is often named like audio -> pattern of the message
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n": "Git LFS pointer: run `git lfs",
    b"/annex/objects/SHA256E-s9--00.wav\n": "git-annex pointer: run `git annex get`",
    b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ": "macOS's metadata of another file",
    b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00": "m4a.*convert it, as by `ffmpeg",
    b"\x00\x00\x00\x18ftyp3gp4\x00\x00\x02\x00": "3gp.*convert it",
    b"\x1aE\xdf\xa3\x9fB\x86\x81\x01": "WebM: convert it",
    b"0&\xb2u\x8ef\xcf\x11\xa6\xd9": "Windows Media .*convert it",
    b"\xff\xf1P\x80\x02\x1f\xfc": "AAC: convert it",
    b"#!AMR\n\x0c\x91": "AMR: convert it",
    b"\x1f\x8b\x08\x00\x00": "gzip: gunzip it first",
    b"PK\x03\x04\x14\x00": "zip archive: unpack it",
    b"a.wav" + bytes(252) + b"ustar\x0000": "tar archive: unpack it",
    b"<!DOCTYPE html>\n<html>": "web page: the download failed",
    b"<?xml version='1.0'?><Error>": "XML, as servers answer",
    b"\x93NUMPY\x01\x00": "NumPy array",
    b'{"error": "not found"}': "a text file",
    bytes(4096): "full of zeros",
}
