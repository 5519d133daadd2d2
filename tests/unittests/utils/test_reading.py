"""What users write, in the encodings and with the mistakes that they write it in."""

import builtins
import gzip
import json

import pytest

from speechbrain_clsp.utils.reading import (
    parse_json,
    read_csv,
    read_json,
    read_json_lines,
    read_lines,
    read_text,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
TABLE = "wav,caption\na.wav,Ein “Kind”.\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
MARKS = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}


def encoded(text: str, encoding: str) -> bytes:
    return (MARKS.get(encoding, "") + text).encode(encoding)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_marks_and_compression_are_recognized_by_content(tmp_path, encoding, compress):
    def write(text: str):
        data = encoded(text, encoding)
        (tmp_path / "a.txt").write_bytes(gzip.compress(data) if compress else data)
        return tmp_path / "a.txt"

    assert read_text(write("Ein “Kind”.\r\nMore.\rEnd\n")) == "Ein “Kind”.\nMore.\nEnd\n"
    assert read_json(write('{"a": "é"}')) == {"a": "é"}
    assert [value for _, value in read_json_lines(write('{"a": 1}\r\n\r\n[2]'))] == [{"a": 1}, [2]]
    assert list(read_lines(write("é\n\né"))) == [(1, "é".encode()), (3, "é".encode())]
    header, rows = read_csv(write(TABLE), ("wav", "caption"))
    assert header == ["wav", "caption"]
    assert [row.cells for row in rows] == [["a.wav", "Ein “Kind”."]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"One.\nTwo.\nCaf\xe9.\n", "line 3: the byte 0xe9 is not UTF-8"),
        ("One.\nTwo.".encode("utf-16-le"), "line 1: holds a zero byte"),
        (b"\xff\xfea", "line 1: the byte 0x61 is not UTF-16"),
        (POINTER.encode(), "Git LFS pointer.*git lfs pull"),
        (gzip.compress(b"long " * 99, mtime=0)[:-9], "cut off or damaged"),
    ],
)
def test_what_is_not_text_is_named_with_file_and_line(tmp_path, data, message):
    path = tmp_path / "captions of mine.txt"
    path.write_bytes(data)
    for read in (read_text, read_json):
        with pytest.raises(ValueError, match=rf"captions of mine.txt.*{message}"):
            read(path)


def test_a_file_without_permission_is_named_with_the_way_out(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(PermissionError, match=r"a\.txt may not be read.*chmod"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice in one object: 1 and 2"),
        ("[" * 100_000, "nested too deeply"),
        ('["\\ud83d"]', r"'\\ud83d', half of a character"),
        ("{broken", "line 1 column 2"),
        ("", "line 1 column 1"),
    ],
)
def test_json_that_would_lose_or_spoil_something_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json: .*{message}"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}\n" + (text or "{"))
    with pytest.raises(ValueError, match="a.json, line 2: "):
        list(read_json_lines(tmp_path / "a.json"))


def test_whole_characters_in_escapes_are_read():
    assert parse_json(json.dumps({"a": "😀"}).encode()) == {"a": "😀"}


KNOWN = ("wav", "caption", "start")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "sep={}\n", "\ufeff"])
def test_separators_and_capitals_are_recognized_by_known_columns(tmp_path, separator, start):
    lines = [["Wav", ' "CAPTION"'.strip(), "labels.Mood"], ["a.wav", '"One; two, | three"', "x"]]
    text = "\n".join(separator.join(line) for line in lines)
    (tmp_path / "a.csv").write_text(start.format(separator) + text, encoding="utf-8")
    header, rows = read_csv(tmp_path / "a.csv", KNOWN)
    assert header == ["wav", "caption", "labels.Mood"]
    (row,) = rows
    assert row.cells == ["a.wav", "One; two, | three", "x"]
    assert (row.number, row.line) == (2, 3 if "sep" in start else 2)


def test_a_row_that_is_not_utf8_has_a_fault_and_others_have_none(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"wav,caption\n\na.wav,Caf\xe9\nb.wav,Tea\n")
    _, (bad, good) = read_csv(tmp_path / "a.csv", KNOWN)
    assert "the byte 0xe9 in line 3 is not UTF-8" in bad.fault and not good.fault
    (tmp_path / "a.csv").write_bytes(b"wav,caf\xe9\na.wav,Tea\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 1: the byte 0xe9"):
        read_csv(tmp_path / "a.csv", KNOWN)


def test_quotation_marks_that_do_not_match_are_named_by_line(tmp_path):
    (tmp_path / "a.csv").write_text('wav,caption\na.wav,"open\nb.wav,x\n')
    with pytest.raises(ValueError, match=r"a\.csv, near line 3: .*mark is not closed"):
        list(read_csv(tmp_path / "a.csv", KNOWN)[1])
    (tmp_path / "a.csv").write_text("")
    assert read_csv(tmp_path / "a.csv", KNOWN)[0] == []
