"""Sheets on which people score captions, through ``clsp judge sheet`` and ``read``."""

import csv
import json

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest

CLIPS = 7


@pytest.fixture
def clips(tmp_path) -> None:
    """Write a manifest; sheets need no audio."""
    rows = [{"id": f"clip{n}", "audio": "a.wav", "duration": 1.0} for n in range(CLIPS)]
    write_manifest(tmp_path / "clips.arrow", rows)


def test_sheets_hide_sources_and_are_read_back(clips, tmp_path, capsys):
    lines = {
        name: [{"id": f"clip{n}", "caption": f"{text} {n}."} for n in range(CLIPS)]
        for name, text in (("ours", "A calm woman"), ("theirs", "A person"))
    }
    for name, some in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    out, given = str(tmp_path / "judged"), [f"{n}={tmp_path / n}.jsonl" for n in lines]
    manifest = ["--manifest", str(tmp_path / "clips.arrow")]
    assert main(["judge", "sheet", "--output", out, *manifest, "--captions", *given]) == 0
    sheet = list(csv.DictReader(open(tmp_path / "judged/sheet.csv", encoding="utf-8")))
    assert len(sheet) == 2 * CLIPS and "ours" not in (tmp_path / "judged/sheet.csv").read_text()
    assert [line["caption"] for line in sheet] != sorted(line["caption"] for line in sheet)
    for rater, lift in (("ann", 0), ("bob", 1)):
        with open(tmp_path / f"{rater}.csv", "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, sheet[0])
            writer.writeheader()
            for line in sheet[:-1]:  # one is left empty
                good = 4 if "calm" in line["caption"] else 2
                scores = {"correctness": good, "coverage": good + lift, "naturalness": 5}
                writer.writerow({**line, **scores})
        read = ["--sheet", str(tmp_path / f"{rater}.csv"), "--rater", rater]
        assert main(["judge", "read", "--output", out, *read]) == 0
    metrics = json.loads((tmp_path / "judged/judge.json").read_text())["judges"]["people"]
    assert metrics["scores"]["ours"]["correctness"]["value"] == 4.0
    assert metrics["scores"]["theirs"]["coverage"]["value"] == 2.5
    assert metrics["agreement"]["correctness"]["scores"] == 1.0
    capsys.readouterr()
    (tmp_path / "bad.csv").write_text("item,correctness,coverage,naturalness\n1,3,9,3\n")
    read = ["--sheet", str(tmp_path / "bad.csv"), "--rater", "cy"]
    assert main(["judge", "read", "--output", out, *read]) == 2
    assert "line 2, coverage: '9' is not a whole number" in capsys.readouterr().err


def test_a_corrected_sheet_replaces_what_was_read_before(clips, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("id,caption\nclip0,A woman.\n")
    out = ["--output", str(tmp_path / "judged")]
    given = ["--manifest", str(tmp_path / "clips.arrow"), "--captions", f"a={tmp_path / 'a.csv'}"]
    assert main(["judge", "sheet", *out, *given]) == 0
    assert main(["judge", "sheet", *out, *given]) == 2  # it may hold ratings
    assert "sheet.csv exists" in capsys.readouterr().err
    for score, changed in ((2, 3), (4, 1), (4, 0)):
        filled = f"item,correctness,coverage,naturalness\n1,{score},3,3\n"
        (tmp_path / "ann.csv").write_text(filled)
        read = ["--sheet", str(tmp_path / "ann.csv"), "--rater", "ann"]
        assert main(["judge", "read", *out, *read]) == 0
        assert f"{changed} of 3 scores of ann are new or changed" in capsys.readouterr().out
        metrics = json.loads((tmp_path / "judged/judge.json").read_text())
        (people,) = metrics["judges"].values()
        assert people["scores"]["a"]["correctness"]["value"] == score
    (tmp_path / "ann.csv").write_text("item;Correctness;coverage;naturalness\n1;;;\n")
    assert main(["judge", "read", *out, *read]) == 0
    assert "3 earlier ones, which this sheet leaves empty, are kept" in capsys.readouterr().out
    twice = "item,correctness,coverage,naturalness\n1,3,3,3\n1,3,3,3\n"
    (tmp_path / "ann.csv").write_text(twice)
    assert main(["judge", "read", *out, *read]) == 2
    assert "line 3: item 1 was there before" in capsys.readouterr().err
    for name, reason in (("", "needs a name"), ("ann ", "needs a name"), ("a" * 99, "at most 64")):
        assert main(["judge", "read", *out, *read[:-1], name]) == 2
        assert reason in capsys.readouterr().err
