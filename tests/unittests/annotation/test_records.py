"""Records of annotation stages."""

import pytest

from speechbrain_clsp.annotation.records import Records, merge_records, read_records


def test_torn_last_line_at_every_byte(tmp_path):
    """If this fails, a kill in the middle of a write spoils the file or loses whole records."""
    path = tmp_path / "a.jsonl"
    with Records(path) as records:
        records.append({"key": "a", "text": "one"})
        first = path.stat().st_size
        records.append({"key": "b", "text": "é two"})
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Records(path) as records:
            assert records.keys == {"a"}
            assert records.append({"key": "b", "text": "é two"})
        assert path.read_bytes() == whole


def test_merge_keeps_each_key_once(tmp_path):
    """If this fails, overlapping shards give duplicate captions or lose some."""
    for name, keys in {"x": "abc", "y": "bcd"}.items():
        with Records(tmp_path / name) as records:
            assert all(records.append({"key": key}) for key in keys)
    output = tmp_path / "all"
    assert merge_records([tmp_path / "x", tmp_path / "y"], output) == 4
    assert [record["key"] for record in read_records(output)] == list("abcd")
    with pytest.raises(FileExistsError):
        merge_records([], output)


def test_damage_is_told(tmp_path):
    """If this fails, a damaged line in the middle is skipped and its record lost silently."""
    path = tmp_path / "a"
    path.write_bytes(b'{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(ValueError, match="line 2"):
        Records(path)


def test_joined_files_give_each_key_once(tmp_path):
    """If this fails, shards joined with ``cat`` give duplicate captions."""
    path = tmp_path / "joined"
    path.write_bytes(b'{"key": "a"}\n{"key": "b"}\n{"key": "a"}\n')
    assert [record["key"] for record in read_records(path)] == ["a", "b"]
