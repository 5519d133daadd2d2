"""Text, JSON and tables that users wrote: one way to read them, and errors that name the place."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple, cast

from speechbrain_clsp.utils.content import LFS_POINTER

_GZIP = b"\x1f\x8b"
# Longest first: the mark of UTF-32 starts with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_MARK = 4  # bytes
SEPARATORS = (",", ";", "\t", "|")


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, without its compression, if it has one.

    Raises
    ------
    PermissionError
        If it may not be read.
    ValueError
        If it is a Git LFS pointer.
    """
    try:
        file = open(path, "rb")
    except PermissionError as error:
        raise PermissionError(
            f"{path} may not be read: you have no permission; its owner can run chmod +r on it"
        ) from error
    with file:
        head = file.read(len(LFS_POINTER))
        file.seek(0)
        if head == LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, which stands for a file that was not downloaded: run"
                " `git lfs pull` in its folder"
            )
        yield cast(IO[bytes], gzip.open(file)) if head.startswith(_GZIP) else file


def read_text(path: str | os.PathLike) -> str:
    r"""Read a text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark, gzipped or not.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    str
        Without the byte order mark, and with ``\n`` at the ends of lines.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If it is not text in one of these encodings (the message names the line), a Git LFS
        pointer, or damaged.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> _ = path.write_text("A man.\r\n", encoding="utf-16")
    >>> read_text(path)
    'A man.\n'
    """
    return decode_text(_read_bytes(path), path).replace("\r\n", "\n").replace("\r", "\n")


def _read_bytes(path: str | os.PathLike) -> bytes:
    with _opened(path) as file:
        try:
            return file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is cut off or damaged ({error}): copy it again") from error


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")


def decode_text(data: bytes, path: str | os.PathLike, errors: str = "strict") -> str:
    r"""Return what bytes mean as text, in an encoding as :func:`read_text` takes it.

    Arguments
    ---------
    data : bytes
        All of a file, or of a member of an archive.
    path : str or path
        Its name, for messages.
    errors : str
        What to do about bytes that are not UTF-8, as for ``bytes.decode``.

    Raises
    ------
    ValueError
        By line, if it is not text.

    Example
    -------
    >>> decode_text("A man.".encode("utf-16"), "a.txt")
    'A man.'
    """
    encoding = _encoding(data)
    try:
        text = data.decode(encoding, errors if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is not"
            f" {encoding.upper().removesuffix('-SIG')}: save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{path}, line {line}: holds a zero byte, so that it is not text, or UTF-16 without"
            " its mark: save the file as UTF-8"
        )
    return text


def parse_json(text: str | bytes) -> Any:
    r"""Parse JSON that may hold no key twice and no half of a character.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8, repeats a key in one object, or is nested too deeply.

    Example
    -------
    >>> parse_json('{"caption": "A man.", "caption": "A woman."}')
    Traceback (most recent call last):
    ...
    ValueError: has the key 'caption' twice in one object: 'A man.' and 'A woman.'
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if "\\u" in text:  # only an escape can give half of a character
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"holds {error.object[error.start]!a}, half of a character") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                both = f"{seen[key]!r} and {value!r}"
                raise ValueError(f"has the key {key!r} twice in one object: {both}")
            seen[key] = value
    return found


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; encodings and errors are those of :func:`read_text`, by its name.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    Any
        What it holds.

    Raises
    ------
    ValueError
        Also as :func:`parse_json` does.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.json"
    >>> _ = path.write_text('{"prompts": 1}', encoding="utf-8-sig")
    >>> read_json(path)
    {'prompts': 1}
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON that can be used: {error}") from error


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    r"""Stream the non-empty lines of a text file, gzipped or not, in any encoding with a mark.

    Yields
    ------
    (int, bytes)
        Number in the file, from 1, and the line in UTF-8 without surrounding white space. Bytes
        that are not UTF-8 are left as they are.

    Raises
    ------
    ValueError
        If the file is truncated or damaged, after all lines before the damage.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl.gz"
    >>> _ = path.write_bytes(gzip.compress(b"\xef\xbb\xbf{}\n\n[]\n"))
    >>> list(read_lines(path))
    [(1, b'{}'), (3, b'[]')]
    """
    number = 0
    with _opened(path) as file:
        try:
            for number, line in enumerate(_in_utf8(file), start=1):
                if line.strip():
                    yield number, line.strip()
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} is cut off or damaged after line {number} ({error}): download it again;"
                " what was prepared up to there is kept"
            ) from error


def _in_utf8(file: IO[bytes]) -> Iterator[bytes]:
    head = file.read(_LONGEST_MARK)
    file.seek(0)
    encoding = _encoding(head)
    if encoding == "utf-8":
        yield from file
    elif encoding == "utf-8-sig":
        file.seek(len(codecs.BOM_UTF8))
        yield from file
    else:
        for line in io.TextIOWrapper(file, encoding=encoding, newline="\n"):
            yield line.encode()


def read_json_lines(path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    r"""Stream the values of a file of JSON lines, each with its place for messages.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    iterator of (str, Any)
        File and line for messages, and the value.

    Raises
    ------
    ValueError
        As :func:`parse_json`, by file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl"
    >>> _ = path.write_text('{"id": "a"}\n')
    >>> [value for _, value in read_json_lines(path)]
    [{'id': 'a'}]
    """
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{where}: is not JSON that can be used: {error}") from error
        yield where, value


class CsvRow(NamedTuple):
    """A row of a table below its header."""

    number: int  # of the row, the header being 1; empty lines do not count
    line: int  # the last line of it in the file
    cells: list[str]
    fault: str = ""  # why it cannot be used


def read_csv(
    path: str | os.PathLike, known: Collection[str] = (), separator: str = ","
) -> tuple[list[str], Iterator[CsvRow]]:
    r"""Read a table in text form; encodings and errors are those of :func:`read_text`.

    Arguments
    ---------
    path : str or path
        The table.
    known : collection of str
        Columns that it may have, in lower case. By them the separator is recognized (commas,
        semicolons, tabs, bars), and a known name may have capitals. Without them the header is
        taken as it is.
    separator : str
        What separates cells if neither known columns nor the number of cells tell.

    Returns
    -------
    header : list of str
        Names of the columns, without white space around them; empty for an empty file.
    rows : iterator of CsvRow
        Rows with bytes that are not UTF-8 have a ``fault``.

    Raises
    ------
    ValueError
        Also, by line, if quotation marks do not match.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.csv"
    >>> _ = path.write_text("Wav;Caption\na.wav;A man, calm.\n")
    >>> header, rows = read_csv(path, ("wav", "caption"))
    >>> header, [row.cells for row in rows]
    (['wav', 'caption'], [['a.wav', 'A man, calm.']])
    """
    # Not by pandas, which can go on after a row with too many fields only if it also drops rows
    # with an open quotation mark without notice, and renames the second of two equal columns.
    text = decode_text(_read_bytes(path), path, errors="surrogateescape")
    skipped = 0
    if known and text.startswith("sep=") and len(text) > len("sep="):  # a note of Excel's
        separator, (_, _, text), skipped = text[len("sep=")], text.partition("\n"), 1
    elif known:
        separator = _find_separator(text, known, separator)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = _csv_rows(reader, path, skipped)
    first = next(rows, None)
    if first is None:
        return [], rows
    if first.fault:
        raise ValueError(f"{path}, line {first.line}: {first.fault}")
    names = [name.strip() for name in first.cells]
    return [n.lower() if n.lower() in known else n for n in names], rows


def _find_separator(text: str, known: Collection[str], default: str) -> str:
    """Return the separator by which the first line has the most known columns, or else cells."""
    first = text.lstrip("\r\n").partition("\n")[0]

    def count(separator: str) -> tuple[int, int]:
        cells = [cell.strip().strip('"').strip().lower() for cell in first.split(separator)]
        return len(set(cells) & set(known)), len(cells)

    return max((default, *SEPARATORS), key=count)  # the first of those with as many


def _csv_rows(reader: Any, path: str | os.PathLike, skipped: int) -> Iterator[CsvRow]:
    number = 0
    try:
        for cells in reader:
            if not cells:
                continue
            number += 1
            line = reader.line_num + skipped
            escaped = [c for c in "".join(cells) if "\udc80" <= c <= "\udcff"]
            fault = ""
            if escaped:
                byte = ord(escaped[0]) - 0xDC00
                fault = f"the byte 0x{byte:02x} in line {line} is not UTF-8: save it as UTF-8"
            yield CsvRow(number, line, cells, fault)
    except csv.Error as error:
        hint = ": a quotation mark is not closed" if "end of data" in str(error) else ""
        where = f"{path}, near line {reader.line_num + skipped}"
        raise ValueError(f"{where}: {error}{hint}") from error


def printable(name: str | bytes) -> str:
    r"""Return a name or message as characters that can be printed in one line, for any bytes.

    Example
    -------
    >>> printable(os.fsdecode(b"caf\xe9.wav")), printable("a\nb.wav")
    ('caf\\xe9.wav', 'a\\nb.wav')
    """
    try:
        text = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no name that a file can have
        text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
