"""What a file holds that cannot be read, told by its first bytes."""

from __future__ import annotations

import os

LFS_POINTER = b"version https://git-lfs"
HEAD = 512  # bytes that are looked at
CONVERT = "convert it, as by `ffmpeg -i FILE FILE.wav`"
UNPACK = "unpack it first"
ANNEX = "a git-annex pointer: run `git annex get` in its repository"
APPLE = "macOS's metadata of another file (._*), which holds no data: leave it out"
# (place of the first byte, bytes, what it is and what to do); the first that fits counts.
KINDS = (
    (0, LFS_POINTER, "a Git LFS pointer: run `git lfs pull` in its repository"),
    (0, b"../../.git/annex/", ANNEX),
    (0, b"/annex/objects/", ANNEX),
    (0, b"\x00\x05\x16\x07", APPLE),
    (0, b"\x00\x05\x16\x00", APPLE),
    (4, b"ftyp", f"MPEG-4 audio or video (m4a, mp4, 3gp): {CONVERT}"),
    (0, b"\x1aE\xdf\xa3", f"Matroska or WebM: {CONVERT}"),
    (0, b"0&\xb2u\x8ef\xcf\x11", f"Windows Media (wma, wmv): {CONVERT}"),
    (0, b"\xff\xf1", f"AAC: {CONVERT}"),
    (0, b"\xff\xf9", f"AAC: {CONVERT}"),
    (0, b"ADIF", f"AAC: {CONVERT}"),
    (0, b"#!AMR", f"AMR: {CONVERT}"),
    (0, b"#!SILK", f"SILK: {CONVERT}"),
    (0, b"\x02#!SILK", f"SILK: {CONVERT}"),
    (0, b"wvpk", f"WavPack: {CONVERT}"),
    (0, b"MAC ", f"Monkey's Audio: {CONVERT}"),
    (0, b"ajkg", f"Shorten: {CONVERT}"),
    (8, b"AVI ", f"video (avi): {CONVERT}"),
    (0, b"FLV", f"video (flv): {CONVERT}"),
    (0, b"\x00\x00\x01\xba", f"video (mpeg): {CONVERT}"),
    (0, b"\x1f\x8b", "compressed by gzip: gunzip it first"),
    (0, b"BZh", f"compressed by bzip2: {UNPACK}"),
    (0, b"\xfd7zXZ", f"compressed by xz: {UNPACK}"),
    (0, b"(\xb5/\xfd", f"compressed by zstd: {UNPACK}"),
    (0, b"PK", f"a zip archive: {UNPACK}"),
    (0, b"7z\xbc\xaf", f"a 7z archive: {UNPACK}"),
    (0, b"Rar!", f"a rar archive: {UNPACK}"),
    (257, b"ustar", f"a tar archive: {UNPACK}"),
    (0, b"\x93NUMPY", "a NumPy array: load it by numpy.load"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"PAR1", "a Parquet table: load it by `datasets` or pandas"),
    (0, b"ARROW1", "an Arrow table: load it by `datasets` or pyarrow"),
    (0, b"\x89PNG", "an image (png)"),
    (0, b"\xff\xd8\xff", "an image (jpeg)"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x7fELF", "a program"),
)
TEXTS = (
    ((b"<!doctype html", b"<html"), "a web page: the download failed or wants a login"),
    ((b"<?xml", b"<error"), "XML, as servers answer when a download fails"),
)


def describe_content(head: bytes) -> str:
    r"""Return what a file holds, and what to do about it; "" if the bytes do not tell.

    Readers call it for files that they failed to read.

    Arguments
    ---------
    head : bytes
        The first bytes of the file; 512 are enough.

    Example
    -------
    >>> describe_content(b"\x1f\x8b\x08")
    'compressed by gzip: gunzip it first'
    >>> describe_content(b"not what it should be")
    'a text file'
    """
    if not head:
        return "empty"
    for start, magic, kind in KINDS:
        if head[start : start + len(magic)] == magic:
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for starts, kind in TEXTS:
        if text.startswith(starts):
            return kind
    if not head[:HEAD].strip(b"\x00"):
        return "full of zeros: the disk or the download failed, get it again"
    if _is_text(head[:HEAD]):
        return "a text file"
    return ""


def describe_file(path: str | os.PathLike) -> str:
    """Return :func:`describe_content` of a file; OSError if it cannot be opened.

    Example
    -------
    >>> path = getfixture("tmp_path") / "model.safetensors"
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> describe_file(path)
    'a Git LFS pointer: run `git lfs pull` in its repository'
    """
    with open(path, "rb") as file:
        return describe_content(file.read(HEAD))


def explain_file(path: str | os.PathLike, expected: str) -> str:
    """Return ", it is ..." for messages; "" if the file is as ``expected``, or does not tell.

    Arguments
    ---------
    path : str or path
        A file that could not be read.
    expected : str
        How :func:`describe_file` begins for what it should be.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.arrow"
    >>> _ = path.write_bytes(b"PAR1")
    >>> explain_file(path, "a Parquet"), explain_file(path, "an Arrow")[:22]
    ('', ', it is a Parquet tabl')
    """
    try:
        kind = describe_file(path)
    except OSError:
        return ""
    return f", it is {kind}" if kind and not kind.startswith(expected) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character is cut in two
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)
