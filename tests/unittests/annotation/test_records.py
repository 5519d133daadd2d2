"""Records of annotation stages."""

import pytest

from speechbrain_clsp.annotation.records import Records, read_records


def test_torn_last_line_at_every_byte_is_set_aside(tmp_path, capsys):
    path, aside = tmp_path / "a.jsonl", tmp_path / "a.jsonl.torn"
    with Records(path) as records:
        records.append({"key": "a", "text": "one"})
        first = path.stat().st_size
        records.append({"key": "b", "text": "é two"})
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        keys = {"a"} if cut >= first - 1 else set()  # without its newline, a record is complete
        keys |= {"b"} if cut == len(whole) - 1 else set()
        aside.unlink(missing_ok=True)
        with Records(path) as records:
            assert records.keys == keys
            records.append({"key": "a", "text": "one"})
            records.append({"key": "b", "text": "é two"})
        assert path.read_bytes() == whole
        torn = whole[:cut].split(b"\n")[-1] if cut not in (first - 1, len(whole) - 1) else b""
        assert (aside.read_bytes() if aside.exists() else b"") == (torn + b"\n" if torn else b"")
        assert ("moved to" in capsys.readouterr().out) == bool(torn)


@pytest.mark.parametrize("content", [b"my only copy", b'{"id": "a", "wav', b'{"id": 1}', b"a\nb"])
def test_files_that_are_not_records_are_left_as_they_are(tmp_path, content):
    path = tmp_path / "caption.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="caption.jsonl, line 1: not a record"):
        Records(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_damage_is_told(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b'{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(ValueError, match="line 2"):
        Records(path)


def test_joined_files_give_each_key_once(tmp_path):
    path = tmp_path / "joined"
    path.write_bytes(b'{"key": "a"}\n{"key": "b"}\n{"key": "a"}\n')
    assert [record["key"] for record in read_records(path)] == ["a", "b"]
    before = path.read_bytes()
    with Records(path) as records:
        assert records.keys == {"a", "b"}
    assert path.read_bytes() == before
