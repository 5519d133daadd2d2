"""The index of audio files and members of tar files."""

import os
import pickle

import pytest

from speechbrain_clsp.prepare import audio_index
from speechbrain_clsp.prepare.audio_index import Place, build_index, key_of
from tests.unittests.dataio.test_shards import make_tar


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "audio"
    for name in ("p001/a.wav", "p002/a.flac", "p003/b.m4a", "p004/.hidden.wav", "p005/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"RIFF")
    make_tar(root / "s.tar", {"x/p009/a.mp3": b"sound", "x/p009/a.json": b"{}"})
    return root


def test_files_and_members_are_found_by_the_parts_that_name_them(root, tmp_path):
    index = build_index(root, 2, tmp_path / "index")
    assert len(index) == 3 and index.unreadable == 1
    assert index.find("any/where/p001/a.mp3") == Place(str(root / "p001/a.wav"))
    assert index.find("p002-a").audio == str(root / "p002/a.flac")
    member = index.find("p009/a")
    data = (root / "s.tar").read_bytes()
    assert data[member.offset : member.offset + member.nbytes] == b"sound"
    assert index.find("p003/b") is index.find("a") is None
    again = pickle.loads(pickle.dumps(index))
    assert again.find("p009/a") == member and again.fingerprint == index.fingerprint


def test_a_name_in_two_places_is_an_error(root, tmp_path):
    index = build_index(root, 1, tmp_path / "index")
    with pytest.raises(LookupError, match="in .* and in "):
        index.find("a")


def test_shards_are_scanned_again_only_if_they_changed(root, tmp_path, monkeypatch):
    scanned = []
    scan = audio_index.scan_shard
    monkeypatch.setattr(audio_index, "scan_shard", lambda path: scanned.append(path) or scan(path))
    first = build_index(root, 2, tmp_path / "index").fingerprint
    assert build_index(root, 2, tmp_path / "index").fingerprint == first and len(scanned) == 1
    make_tar(root / "s.tar", {"p010/c.mp3": b"other"})
    assert build_index(root, 2, tmp_path / "index").find("p010/c") is not None
    assert len(scanned) == 2


def test_names_of_paths_and_ids_have_equal_keys():
    assert key_of("wav/id1/x-y/00001.wav", 3) == key_of("id1-x-y-00001", 3)
    assert key_of("./a.b.wav", 1) == key_of("a.b", 1) != key_of("a", 1)


def test_a_name_that_is_not_utf8_is_listed_and_others_are_found(root, tmp_path):
    """Also in a tar file, where it is found by the bytes of its name."""
    with open(os.fsencode(root) + b"/p001/caf\xe9.wav", "wb") as file:
        file.write(b"RIFF")
    make_tar(root / "t.tar", {"p011/caf\udce9.wav": b"sound", "p011/none\udce9.wav": b""})
    index = build_index(root, 2, tmp_path / "index")
    assert index.find("p001/a") is not None and index.find("p001/caf\udce9") is None
    assert index.find("p011/caf\udce9") is not None
    assert [line.removeprefix(str(root)) for line in index.problems] == [
        r"/p001/caf\xe9.wav: the name is not UTF-8, rename it",
        r"/t.tar: p011/none\xe9.wav: empty",
    ]
