"""Lists that commands print."""

from pathlib import Path

from speechbrain_clsp.cli.common import list_entries


def test_a_long_list_is_cut_after_ten_and_lies_in_a_file(tmp_path):
    path, entries = tmp_path / "x.bad.txt", [f"{n}.wav is empty" for n in range(200)]
    assert list_entries(entries[:10], path).splitlines() == [f"  {line}" for line in entries[:10]]
    assert not path.exists()
    lines = list_entries(entries, path, indent="").splitlines()
    assert lines == [*entries[:10], f"and 190 more: {path}"]
    where = list_entries(entries).splitlines()[-1].removeprefix("  and 190 more: ")
    assert Path(where).read_text().splitlines() == entries
    Path(where).unlink()
    assert path.read_text().splitlines()[1:] == entries
