"""Records to manifests in parts."""

import json

import pytest

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.prepare import assembly
from speechbrain_clsp.prepare.assembly import assemble, make_part, report_path
from speechbrain_clsp.prepare.clip import Record, UnusableClipError, parse_line


def records(*names: str) -> list[Record]:
    """Return records that are rows already; empty names are malformed lines."""
    rows = [{"id": name, "audio": "a.wav", "duration": 1.5} for name in names]
    lines = [json.dumps(row) if row["id"] else "{broken" for row in rows]
    return [Record(number, line.encode()) for number, line in enumerate(lines, start=1)]


def test_order_counts_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_RECORDS", 2)
    outcome = assemble(tmp_path / "a.arrow", records("c", "", "a", "c", "b"), parse_line)
    assert Manifest(tmp_path / "a.arrow").column("id") == ["c", "a", "b"]
    assert outcome.left_out == {"malformed line": 1, "id occurs twice": 1}
    report = json.loads(report_path(tmp_path / "a.arrow").read_text())
    assert report["clips"] == 3 and report["hours"] == round(4.5 / 3600, 3)
    listed = (tmp_path / "a_left_out.tsv").read_text().splitlines()
    assert listed[0] == "record\tid\treason\tdetail" and len(listed) == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.arrow",
        "a_report.json",
        "a_left_out.tsv",
    }


def test_parts_are_kept_until_records_or_fingerprint_change(tmp_path):
    calls = []

    def convert(line: bytes) -> dict:
        calls.append(line)
        return parse_line(line)

    block = records("a", "b")
    path = make_part(tmp_path, (0, block), convert, "x")
    assert make_part(tmp_path, (0, block), convert, "x") == path and len(calls) == 2
    make_part(tmp_path, (0, block), convert, "y")
    make_part(tmp_path, (0, records("a", "c")), convert, "y")
    assert len(calls) == 6


def test_records_before_an_error_of_the_source_are_kept(tmp_path):
    def source():
        yield from records("a", "b")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        assemble(tmp_path / "a.arrow", source(), parse_line)
    assert not (tmp_path / "a.arrow").exists()
    assert len(list((tmp_path / ".a_parts").iterdir())) == 1


def test_too_many_malformed_lines_and_no_row_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="More than 1 lines are malformed, the first: line 2"):
        assemble(tmp_path / "a.arrow", records("a", "", ""), parse_line, max_malformed=1)

    def refuse(line: bytes) -> dict:
        raise UnusableClipError("no audio", "a.wav", "clip")

    with pytest.raises(ValueError, match="No record gives a clip: {'no audio': 1}.*clip: a.wav"):
        assemble(tmp_path / "b.arrow", records("a"), refuse)
    with pytest.raises(ValueError, match="there is no record"):
        assemble(tmp_path / "c.arrow", [], parse_line)


def test_a_value_that_does_not_fit_its_column_costs_its_record_alone(tmp_path):
    lines = [
        b'{"id": "a", "audio": "a.wav", "duration": 2}',
        b'{"id": "b", "audio": "a.wav", "duration": 2, "accent": 3}',
        b'{"id": "c", "audio": "a.wav", "duration": "long"}',
        b'{"id": "d", "audio": "a.wav", "duration": 2}',
    ]
    records = [Record(number, line) for number, line in enumerate(lines, start=1)]
    outcome = assemble(tmp_path / "train.arrow", records, parse_line)
    assert outcome.clips == 2 and outcome.left_out == {"malformed line": 2}
    listed = (tmp_path / "train_left_out.tsv").read_text(encoding="utf-8").splitlines()
    assert listed[1].startswith("2\tb\tmalformed line\tcolumn 'accent' is 3")
    assert listed[2].startswith("3\tc\tmalformed line\tcolumn 'duration' is 'long'")
