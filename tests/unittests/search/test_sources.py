"""What users name: folders, patterns, lists, files."""

import pytest

from speechbrain_clsp.search.sources import find_audio, open_source
from tests.utils.small import tone, write


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a/c.flac", "a/d.ogg", "a/._c.flac", "notes.md"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".wav", "/c.flac", ".ogg")):
            write(path, tone(0.5))
        else:
            path.write_text("no audio")
    return tmp_path / "clips"


def test_all_ways_to_name_the_files_lead_to_them(folder, tmp_path):
    files = [str(folder / name) for name in ("a/c.flac", "a/d.ogg", "b.wav")]
    (tmp_path / "list.txt").write_text("\n".join(files) + "\n\n")
    assert list(find_audio([str(folder)])) == files
    assert list(find_audio([str(tmp_path / "list.txt")])) == files
    assert list(find_audio([str(folder / "**/*.flac"), files[2]])) == [files[0], files[2]]
    with pytest.raises(FileNotFoundError, match=r"\*.mp3: no audio file"):
        list(find_audio([str(folder / "*.mp3")]))


def test_files_get_a_manifest_in_the_store_that_must_stay_the_same(folder, tmp_path):
    store = tmp_path / "store"
    first = open_source([str(folder)], store)
    assert [row["id"] for row in first] == ["a/c.flac", "a/d.ogg", "b.wav"]
    assert [row["duration"] for row in first] == pytest.approx([0.5] * 3)
    assert len(open_source([str(folder)], store)) == 3
    write(folder / "e.wav", tone(0.5))
    with pytest.raises(ValueError, match="begun with other recordings"):
        open_source([str(folder)], store)
    assert [path.name for path in store.iterdir()] == ["clips.arrow"]
    with pytest.raises(FileExistsError, match="notes.md"):
        open_source([str(folder / "b.wav")], folder)


@pytest.mark.parametrize("words", [["typo.wav"], ["b.wav", "typo.wav"], ["wrong.txt"]])
def test_names_of_no_file_begin_no_store(folder, tmp_path, words):
    """Else the right ones would be refused as other recordings."""
    (folder / "wrong.txt").write_text("typo.wav\nmore.wav\n")
    with pytest.raises(FileNotFoundError, match=r"typo.wav: no such file"):
        open_source([str(folder / word) for word in words], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_files_of_a_list_may_be_missing(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder / 'typo.wav'}\n{folder / 'b.wav'}\n")
    assert len(open_source([str(tmp_path / "list.txt")], tmp_path / "store")) == 2
