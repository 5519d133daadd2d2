"""One manifest from records and audio, and the command line of the prepare scripts."""

import json

import pytest

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.prepare.clip import ClipRecord, Record, parse_line
from speechbrain_clsp.prepare.corpora import AudioFinder
from speechbrain_clsp.prepare.splits import (
    Split,
    local_file,
    prepare_split,
    run_prepare,
)
from tests.utils.small import tone, write


def to_clip(line: bytes) -> ClipRecord:
    row = parse_line(line)
    return ClipRecord({**row, "start": None}, [row["audio"]])


@pytest.fixture
def prepare(tmp_path):
    """Return a function that prepares two clips."""
    write(tmp_path / "a.wav", tone(1.0))
    lines = [json.dumps({"id": n, "audio": "a.wav", "duration": 1.0}).encode() for n in "ab"]

    def run(n_jobs: int = 1, check_length: bool = False, **settings):
        records = (Record(number, line) for number, line in enumerate(lines, start=1))
        split = Split("train", "training", records, to_clip, {"bytes": len(lines)})
        finder = AudioFinder(tmp_path, template="{path}", check_length=check_length)
        return prepare_split(split, finder, tmp_path / "out", n_jobs, **settings)

    return run


def test_a_split_is_prepared_once(prepare, tmp_path, capsys):
    assert prepare(dry_run=True).clips == 2 and not (tmp_path / "out").exists()
    assert prepare().clips == 2
    assert "train: 2 clips" in capsys.readouterr().out
    assert Manifest(tmp_path / "out" / "train.arrow").column("split") == ["training"] * 2
    assert prepare() is None
    with pytest.raises(ValueError, match=r"check_length': \(False, True\).*Delete it"):
        prepare(check_length=True)


def test_a_manifest_without_a_complete_report_is_made_again(prepare, tmp_path):
    prepare()
    report = tmp_path / "out" / "train_report.json"
    found = json.loads(report.read_text())
    del found["settings"]
    report.write_text(json.dumps(found))
    assert prepare().clips == 2


def test_a_manifest_that_was_made_otherwise_is_not_replaced(prepare, tmp_path):
    manifest = tmp_path / "out" / "train.arrow"
    write_manifest(manifest, [{"id": "mine", "audio": "a.wav", "duration": 1.0}])
    with pytest.raises(FileExistsError, match="train.arrow was not made by this script"):
        prepare()
    (tmp_path / "out" / ".train_parts").mkdir()  # interrupted before the report was written
    manifest.write_text("my only copy")
    with pytest.raises(FileExistsError, match="train.arrow exists and is not a manifest"):
        prepare()
    assert manifest.read_text() == "my only copy"
    manifest.unlink()
    assert prepare().clips == 2


def test_published_files_are_found_in_a_folder_or_its_data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.gz").touch()
    assert local_file(tmp_path, "x.gz") == tmp_path / "data" / "x.gz"
    (tmp_path / "x.gz").touch()
    assert local_file(tmp_path, "x.gz") == tmp_path / "x.gz"
    with pytest.raises(FileNotFoundError, match="No y.gz"):
        local_file(tmp_path, "y.gz")
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        local_file(tmp_path / "nowhere", "x.gz")


def test_the_command_line_reads_folders_and_tells_errors_briefly(monkeypatch, capsys):
    about = "Make.", "x.py /a /b", ["train", "test"]
    given = []
    line = ["x.py", "in", "out", "--folder", "ears=/disk2/ears", "--splits", "test"]
    monkeypatch.setattr("sys.argv", line)
    run_prepare(lambda **options: given.append(options), *about)
    assert given[0]["folders"] == {"ears": "/disk2/ears"} and given[0]["splits"] == ["test"]
    assert set(given[0]) == {"data_folder", "save_folder", "folders", "splits", "dry_run"}
    monkeypatch.setattr("sys.argv", ["x.py", "in", "out", "--folder", "ears"])
    with pytest.raises(SystemExit) as caught:
        run_prepare(lambda **options: None, *about)
    assert caught.value.code == 2 and "not of the form KEY=VALUE" in capsys.readouterr().err
