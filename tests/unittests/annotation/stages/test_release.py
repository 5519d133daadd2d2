"""Releases of captions, read back by what they are for."""

import gzip
import json

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.annotation.records import Records
from speechbrain_clsp.annotation.stages import STAGES
from speechbrain_clsp.annotation.stages.release import CUTS, MANIFEST, SortedRecords, write_release
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.prepare.clip import parse_line, read_lines
from speechbrain_clsp.prepare.cuts import clip_from_cut

CLIPS = 7


@pytest.fixture
def clips(tmp_path) -> Manifest:
    """Return a manifest of some clips with labels and global captions."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000 * 10), 16000)
    rows = [
        {
            "id": f"clip{n}",
            "audio": str(tmp_path / "a.wav"),
            "start": float(n),
            "duration": 1.0,
            "sample_rate": 16000,
            "gender": "female",
            "accent": "Scottish",
            "situational_tags": ["calm"],
            "global_captions": [f"A woman, number {n}."],
        }
        for n in range(CLIPS)
    ]
    write_manifest(tmp_path / "clips.arrow", rows)
    return Manifest(tmp_path / "clips.arrow")


def write_records(folder, order: list[int], names=lambda stage: f"{stage}.jsonl") -> None:
    """Write records of all stages; clip 3 lost its captions."""
    for stage in STAGES:
        with Records(folder / names(stage)) as records:
            for n in order:
                captions = (
                    [] if n == 3 else [f"She speaks calmly, {n}|\u00e9.", "Softly."][: 1 + n % 2]
                )
                dropped = [{"caption": "x", "rule": "absence", "reason": "no"}] if n == 3 else []
                head = {"key": f"{stage}{n}", "id": f"clip{n}", "row": n, "model": "m"}
                records.append({**head, "captions": captions, "dropped": dropped})


def test_cuts_and_manifest_hold_what_was_kept(clips, tmp_path):
    write_records(tmp_path / "out", [4, 2, 0, 1, 3, 6, 5])
    statistics = write_release(tmp_path / "out", clips, tmp_path / "release")
    kept = [n for n in range(CLIPS) if n != 3]
    manifest = Manifest(tmp_path / "release" / MANIFEST)
    assert manifest.column("id") == [f"clip{n}" for n in kept]  # in the manifest's order
    rows = [
        clip_from_cut(parse_line(line)).row for _, line in read_lines(tmp_path / "release" / CUTS)
    ]
    for row, back in zip(manifest, rows, strict=True):
        for name in ("id", "audio", "start", "duration", "gender", "accent", "situational_tags"):
            assert (back[name] or None) == (row[name] or None), name
        assert back["fine_captions"] == row["fine_captions"]
        assert back["global_captions"] == row["global_captions"]
    cut = json.loads(gzip.open(tmp_path / "release" / CUTS, "rt").readline())
    assert cut["supervisions"][0]["custom"]["long_captions"] == rows[0]["fine_captions"]
    assert statistics["clips"] == 6 and statistics["captions"] == sum(1 + n % 2 for n in kept)
    assert statistics["stages"]["verify"]["dropped"] == {"absence": 1}
    assert statistics["hours"] == pytest.approx(6 / 3600) and statistics["labels"]["accent"] == {
        "Scottish": 6
    }
    sheet = (tmp_path / "release/datasheet.md").read_text()
    assert "| captions | 8 |" in sheet and "absence 1" in sheet


def test_shards_give_the_same_bytes_as_one_run(clips, tmp_path):
    write_records(tmp_path / "one", [3, 1, 5, 0, 2, 4, 6])
    write_release(tmp_path / "one", clips, tmp_path / "a")
    for shard in range(3):
        name = f"{shard}-of-3.jsonl"
        write_records(tmp_path / "many", list(range(CLIPS))[shard::3], lambda s, n=name: f"{s}.{n}")
    (tmp_path / "many/select.1-of-3.quarantine.jsonl").touch()
    write_release(tmp_path / "many", clips, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted([CUTS, MANIFEST, "datasheet.json", "datasheet.md", "datasheet.html"])
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    (tmp_path / "many/select.jsonl").touch()
    with pytest.raises(ValueError, match="remove one or the other"):
        write_release(tmp_path / "many", clips, tmp_path / "c")
    (tmp_path / "many/select.jsonl").unlink()
    (tmp_path / "many/select.2-of-3.jsonl").unlink()
    with pytest.raises(ValueError, match="missing select.2-of-3.jsonl"):
        write_release(tmp_path / "many", clips, tmp_path / "c")


def test_torn_lines_and_other_manifests_are_noticed(clips, tmp_path):
    write_records(tmp_path / "out", [0, 1, 2])
    with open(tmp_path / "out/select.jsonl", "ab") as file:
        file.write(b'{"key": "x", "row": 5, "id"')
    assert len(SortedRecords([tmp_path / "out/select.jsonl"])) == 3
    twice = [tmp_path / "out/select.jsonl"] * 2
    with pytest.raises(ValueError, match="Row 0 of the manifest has two records"):
        SortedRecords(twice)
    write_manifest(tmp_path / "other.arrow", list(clips)[1:])
    with pytest.raises(ValueError, match="belong to the manifest"):
        write_release(tmp_path / "out", Manifest(tmp_path / "other.arrow"), tmp_path / "x")
