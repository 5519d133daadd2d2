"""MiniFCaps from its prepare script: the same bytes in any process, and after an interruption."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.mini_fcaps.corpus import plan_clips

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "FCaps"))
from mini_fcaps_prepare import make_clip, prepare_mini_fcaps


def digest(folder: Path) -> dict[str, str]:
    """Return the hash of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_seed_same_bytes_in_any_process_and_after_an_interruption(tmp_path):
    sizes = {"n_train": 20, "n_valid": 2, "n_test": 2}
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    expected = digest(tmp_path / "a")
    prepare_mini_fcaps(tmp_path / "b", **sizes, n_jobs=2)
    assert digest(tmp_path / "b") == expected
    for name in ("train.arrow", "wavs/train/train_00007.wav", "wavs/test/test_00001.wav"):
        (tmp_path / "b" / name).unlink()
    prepare_mini_fcaps(tmp_path / "b", **sizes, n_jobs=1)
    assert digest(tmp_path / "b") == expected
    prepare_mini_fcaps(tmp_path / "c", **sizes, n_jobs=1, seed=7)
    assert (
        digest(tmp_path / "c")["wavs/test/test_00001.wav"] != expected["wavs/test/test_00001.wav"]
    )


def test_preparation_is_skipped_or_refused_when_it_should_be(tmp_path):
    sizes = {"n_train": 2, "n_valid": 1, "n_test": 1}
    prepare_mini_fcaps(tmp_path / "never", **sizes, skip_prep=True)
    assert not (tmp_path / "never").exists()
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    before = (tmp_path / "a" / "train.arrow").stat().st_mtime_ns
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    assert (tmp_path / "a" / "train.arrow").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other data_folder|another data_folder"):
        prepare_mini_fcaps(tmp_path / "a", **{**sizes, "n_train": 3}, n_jobs=1)
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["train"] == 2


def test_files_that_are_not_a_minifcaps_are_left_as_they_are(tmp_path):
    sizes = {"n_train": 1, "n_valid": 0, "n_test": 0, "n_jobs": 1}
    for name in ("train.arrow", "pairs.jsonl", "wavs"):
        folder = tmp_path / name.partition(".")[0]
        (folder / "wavs").mkdir(parents=True) if name == "wavs" else folder.mkdir()
        if name != "wavs":
            (folder / name).write_text("my only copy")
        with pytest.raises(FileExistsError, match=f"{name}: there already"):
            prepare_mini_fcaps(folder, **sizes)
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "settings.json").write_text("my only copy")
    with pytest.raises(FileExistsError, match="settings.json is not that of a MiniFCaps"):
        prepare_mini_fcaps(tmp_path, **sizes)


def test_probes_hold_the_test_clips_and_their_twins_and_pairs_name_them(tmp_path):
    prepare_mini_fcaps(tmp_path, n_train=1, n_valid=1, n_test=6, n_jobs=1)
    rows = {row["id"]: row for row in Manifest(tmp_path / "probes.arrow")}
    test = set(Manifest(tmp_path / "test.arrow").column("id"))
    assert test == {name for name, row in rows.items() if row["split"] == "test"}
    assert all(Path(row["audio"]).parent.name == row["split"] for row in rows.values())
    assert all(Path(row["audio"]).is_file() for row in rows.values())
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    assert {pair["side"] for pair in pairs} == {"captions", "clips", "texts"}
    named = {"captions": ("anchor",), "clips": ("true", "false"), "texts": ()}
    found = {pair[key] for pair in pairs for key in named[pair["side"]]}
    assert found == set(rows)


def test_a_half_written_clip_is_made_again(tmp_path):
    (clip,) = plan_clips({"train": 1, "valid": 0, "test": 0}, seed=0)
    folder = tmp_path / "killed" / "wavs" / "train"
    folder.mkdir(parents=True)
    (folder / f".{clip.id}.1.partial.wav").write_bytes(b"RIFF")
    assert make_clip(clip, tmp_path / "killed") == make_clip(clip, tmp_path / "whole")
    name = f"wavs/train/{clip.id}.wav"
    whole = (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "killed" / name).read_bytes() == whole


def test_manifests_may_lie_in_another_folder(tmp_path):
    sizes = {"n_train": 2, "n_valid": 1, "n_test": 1}
    prepare_mini_fcaps(tmp_path / "data", tmp_path / "manifests", **sizes, n_jobs=1)
    assert not list((tmp_path / "data").glob("*.arrow"))
    for split, size in (("train", 2), ("valid", 1), ("test", 1)):
        manifest = Manifest(tmp_path / "manifests" / f"{split}.arrow")
        assert len(manifest) == size and set(manifest.column("split")) == {split}
        assert all(Path(row["audio"]).is_file() for row in manifest)
