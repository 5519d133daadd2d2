"""Texts by id: every form of table, and no text lost."""

import gzip
import json

import pytest

from speechbrain_clsp.annotation.texts import read_texts

FORMS = {
    "a.csv": b"id,caption\na,Caf\xc3\xa9.\nb,Two; 2.\n",
    "semicolons.csv": b'\xef\xbb\xbfID;Caption\na;Caf\xc3\xa9.\nb;"Two; 2."\n',
    "a.tsv": "id\tcaption\na\tCafé.\nb\tTwo; 2.\n".encode("utf-16"),
    "a.jsonl": b'\xef\xbb\xbf{"id": "a", "caption": "Caf\xc3\xa9."}\n\n'
    b'{"id": "b", "caption": "Two; 2."}\n',
}
FORMS |= {f"{name}.gz": gzip.compress(data) for name, data in FORMS.items()}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_texts(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    assert read_texts(tmp_path / name, "caption") == {"a": "Café.", "b": "Two; 2."}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("a", "B."), "line 3: the id 'a' was there before, in .*line 2"),
        (("c", " "), "line 3: caption of 'c' is empty"),
        (("", "B."), "line 3: needs id and caption"),
        (("c", None), "line 3: needs id and caption"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, name, line, message):
    lines = [("id", "caption"), ("a", "A."), line]
    if name == "a.csv":
        text = "\n".join(",".join(cell for cell in line if cell is not None) for line in lines)
    else:
        text = "\n" + "\n".join(json.dumps(dict(zip(lines[0], line))) for line in lines[1:])
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}, {message}"):
        read_texts(tmp_path / name, "caption")


def test_numbers_and_broken_lines_are_named(tmp_path):
    for text in ('{"id": 3, "caption": "A."}', '{"id": "a", "caption": NaN}', "[1]"):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(ValueError, match="a.jsonl, line 1: needs id and caption"):
            read_texts(tmp_path / "a.jsonl", "caption")
    (tmp_path / "a.jsonl").write_text("{}{")
    with pytest.raises(ValueError, match="a.jsonl, line 1: is not JSON"):
        read_texts(tmp_path / "a.jsonl", "caption")
