"""Records of annotation stages."""

import pytest

from speechbrain_clsp.annotation.records import Records, read_records


def test_torn_last_line_at_every_byte(tmp_path):
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
