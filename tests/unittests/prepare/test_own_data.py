"""Own recordings to a manifest, as a user runs it."""

import csv
import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from speechbrain_clsp.captions.policies import TwoCaptions, evaluation_captions
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.prepare import own_data
from tests.utils.data_commands import prepare
from tests.utils.small import tone, write


def test_a_table_becomes_a_manifest(folder, capsys):
    (folder / "data.csv").write_text(
        "\ufeffwav,caption,speaker,intrinsic_tags,labels.mood\n"
        'a.wav,"A man, calm.",s1,deep; raspy,calm\n'
        "a.wav,He is calm.,s1,,\n"
        f"{folder}/sub/a.flac,A woman.,,,\n"
        "naïve 漢.ogg,Ein “Kind”.,,,\n",
        encoding="utf-8",
    )
    rows = prepare(folder, "data.csv")
    assert [row["id"] for row in rows] == ["a", "sub-a", "naïve 漢"]
    assert rows[0]["global_captions"] == rows[0]["fine_captions"] == ["A man, calm.", "He is calm."]
    assert rows[0]["intrinsic_tags"] == ["deep", "raspy"] and rows[0]["labels"] == {"mood": "calm"}
    assert rows[1]["speaker"] is None
    assert [row["duration"] for row in rows] == pytest.approx([1.0, 1.5, 2.0], abs=0.01)
    assert "3 clips" in capsys.readouterr().out
    dataset = CaptionedSpeechDataset(Manifest(folder / "out.arrow"), TwoCaptions())
    assert len(dataset[2]["wav"]) == 32000
    assert evaluation_captions(rows[2]).positives == ["Ein “Kind”."] * 2


def test_json_lines_folders_and_cuts_do_too(folder):
    lines = [
        {"audio": "a.wav", "caption": ["G"], "fine_caption": ["F1", "F2"], "start": 0.25},
        {"audio": "a.wav", "fine_captions": ["F3"], "start": 0.5, "duration": 0.25, "id": "x"},
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = prepare(folder, "data.jsonl")
    assert (first["id"], first["start"], first["duration"]) == ("a-0.25", 0.25, 0.75)
    assert first["global_captions"] == ["G"] and first["fine_captions"] == ["F1", "F2"]
    assert second["id"] == "x" and second["global_captions"] == []

    assert main(["export-cuts", str(folder / "out.arrow"), str(folder / "cuts.jsonl.gz")]) == 0
    assert prepare(folder, "cuts.jsonl.gz") == [
        {**first, "sample_rate": 24000},
        {**second, "sample_rate": 24000},
    ]
    for name in ("data.jsonl", "cuts.jsonl.gz", "out.arrow"):
        (folder / name).unlink()
    for name in ("a", "sub/a", "naïve 漢"):
        (folder / f"{name}.txt").write_text(f"Of {name}.\n\nMore.\n", encoding="utf-8")
    rows = prepare(folder, ".")
    assert [r["id"] for r in rows] == ["a", "naïve 漢", "sub-a"]
    assert rows[1]["fine_captions"] == ["Of naïve 漢.", "More."]
    (folder / "metadata.csv").write_text("file_name,caption\na.wav,Other.\n")
    assert [r["fine_captions"] for r in prepare(folder, ".")] == [["Other."]]


BAD = [
    ({"wav": "absent.wav", "caption": "A."}, "row 2, column 'wav'.*absent.wav"),
    ({"wav": "", "caption": "A."}, "row 2, column 'wav'.*empty"),
    ({"wav": "a.wav", "caption": " "}, "row 2, column 'caption'.*empty"),
    ({"wav": "a.wav", "caption": 3}, "row 2, column 'caption'.*3"),
    ({"wav": "text.wav", "caption": "A."}, "row 2, column 'wav'.*text.wav cannot be read"),
    ({"wav": "a.wav", "caption": "A.", "start": 9}, "row 2, column 'start'.*lasts 1.00 s"),
    ({"wav": "a.wav", "caption": "A.", "duration": 4}, "row 2, column 'duration'.*ends at 4.00 s"),
    ({"wav": "a.wav", "caption": "A.", "duration": 0.01}, "row 2, column 'duration'.*0.1 s"),
    ({"wav": "a.wav", "caption": "A.", "start": "x"}, "row 2, column 'start'.*'x'"),
    ({"wav": "a.wav", "caption": "A.", "id": "one"}, "column 'id'.*'one' is also"),
    ({"wav": "a.wav", "caption": "A.", "color": "x"}, "row 2.*unknown columns.*color"),
    ({"caption": "A."}, "row 2: has no column 'wav'"),
    ({"wav": "a.wav"}, "row 2: has no column 'caption'"),
    ("{broken", "row 2: malformed line"),
    ({"recording": {}, "id": "c", "duration": 1}, "row 2: no caption"),
]


@pytest.mark.parametrize("bad, pattern", BAD, ids=[pattern for _, pattern in BAD])
def test_bad_rows_are_told_by_row_and_column(folder, capfd, bad, pattern):
    (folder / "text.wav").write_text("no audio" * 100)
    good = {"wav": "sub/a.flac", "caption": "B.", "id": "one"}
    lines = [json.dumps(good), bad if isinstance(bad, str) else json.dumps(bad)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    arguments = ["prepare", str(folder / "data.jsonl"), "--output", str(folder / "o.arrow")]
    assert main(arguments) == 2
    printed = capfd.readouterr()
    assert not (folder / "o.arrow").exists() and printed.out == ""
    assert re.search(pattern, printed.err), printed.err
    assert "--skip-bad" in printed.err
    assert main([*arguments, "--skip-bad"]) == 0
    assert Manifest(folder / "o.arrow").column("id") == ["one"]
    assert re.search(pattern, capfd.readouterr().out)


@pytest.mark.parametrize("duration, tolerance, usable", [(0.15, 0.2, True), (0.05, 0.01, False)])
def test_the_shortest_clip_does_not_depend_on_the_tolerance_of_ends(
    folder, monkeypatch, duration, tolerance, usable
):
    monkeypatch.setattr(own_data, "TOLERANCE_SECONDS", tolerance)
    row = {"wav": "a.wav", "caption": "A.", "duration": duration}
    (folder / "data.jsonl").write_text(json.dumps(row))
    arguments = ["prepare", str(folder / "data.jsonl"), "--output", str(folder / "o.arrow")]
    assert main(arguments) == (0 if usable else 2)


def test_the_last_tenth_of_a_second_of_a_file_is_a_clip(folder):
    row = {"wav": "a.wav", "caption": "A.", "start": 0.9}  # 1.0 - 0.9 < 0.1 in floating point
    (folder / "data.jsonl").write_text(json.dumps(row))
    assert len(prepare(folder, "data.jsonl")) == 1


def test_a_clip_of_a_tenth_of_a_second_is_long_enough(folder):
    write(folder / "short.wav", tone(0.1), 16000)
    (folder / "a.csv").write_text("wav,caption\nshort.wav,Short.\n")
    assert [row["duration"] for row in prepare(folder, "a.csv")] == [0.1]


TABLE = [("wav", "caption"), ("a.wav", "A man, calm."), ("sub/a.flac", 'She says "yes".')]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet"])
def test_every_form_of_table_gives_the_same_rows(folder, name):
    path = folder / name
    if name == "t.parquet":
        columns = dict(zip(TABLE[0], zip(*TABLE[1:])))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        opener = gzip.open if name.endswith(".gz") else open
        with opener(path, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if "tsv" in name else ",").writerows(TABLE)
    rows = prepare(folder, name)
    assert [row["fine_captions"] for row in rows] == [["A man, calm."], ['She says "yes".']]


def test_parquet_may_hold_lists_and_nulls(folder):
    table = {
        "audio": ["a.wav", "a.wav"],
        "fine_captions": [["One.", "Two."], ["Three."]],
        "start": [None, 0.5],
        "intrinsic_tags": [["deep"], None],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "t.parquet")
    whole, part = prepare(folder, "t.parquet")
    assert whole["fine_captions"] == ["One.", "Two."] and whole["start"] is None
    assert part["start"] == 0.5 and part["intrinsic_tags"] == []
    (folder / "t.parquet").write_bytes(b"PAR1 broken")
    assert main(["prepare", str(folder / "t.parquet"), "--output", str(folder / "o.arrow")]) == 2


def test_repeated_columns_are_refused_and_empty_lines_are_not_rows(folder, capfd):
    (folder / "a.csv").write_text("wav,caption,caption\na.wav,One.,Two.\n")
    assert main(["prepare", str(folder / "a.csv"), "--output", str(folder / "o.arrow")]) == 2
    assert "columns ['caption'] more than once" in capfd.readouterr().err
    (folder / "b.csv").write_text("wav,caption\n\na.wav,One.\n\nb.wav,Two.\n")
    assert main(["prepare", str(folder / "b.csv"), "--output", str(folder / "o.arrow")]) == 2
    assert "b.csv row 3, column 'wav'" in capfd.readouterr().err


def test_rows_of_a_wrong_width_are_left_out_on_request(folder, capfd):
    (folder / "a.csv").write_text("wav,caption\na.wav,A man, calm.\nsub/a.flac,Good.\na.wav\n")
    assert [row["id"] for row in prepare(folder, "a.csv", "--skip-bad")] == ["a"]
    printed = capfd.readouterr().out
    assert "row 2: has 3 fields" in printed and "row 4: has 1 fields" in printed


def test_sources_that_cannot_be_read_are_refused(folder, capfd):
    (folder / "a.csv").write_text("wav,text\na.wav,b\n")
    (folder / "b.csv").write_text("wav,caption\na.wav,b,c\n")
    (folder / "c.csv").write_text('wav,caption\na.wav,"open\n')
    (folder / "d.csv").write_bytes(b"wav,caption\na.wav,\xff\xfe\n")
    (folder / "e.csv").write_text("wav,caption\n")
    (folder / "f.txt").write_text("")
    (folder / "empty").mkdir()
    wrong = {
        "a.csv": "unknown columns",
        "b.csv": "row 2: has 3 fields, the header has 2",
        "c.csv": "line",
        "d.csv": "line",
    }
    wrong |= {
        "e.csv": "no good row",
        "f.txt": "must be a .csv",
        "g.csv": "No file",
    }
    wrong["empty"] = "no audio files"
    for name, pattern in wrong.items():
        assert main(["prepare", str(folder / name), "--output", str(folder / "o.arrow")]) == 2, name
        error = capfd.readouterr().err
        assert pattern in error and name in error and error.count("\n") == 1
    assert main(["prepare", str(folder / "a.csv"), "--output", "x.txt"]) == 2
    assert "must end in .arrow" in capfd.readouterr().err


def test_a_folder_may_be_given_by_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "a.wav", tone(0.5))
    (tmp_path / "clips" / "a.txt").write_text("A man speaks.")
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "clips", "--output", "out.arrow"]) == 0
    assert Manifest(tmp_path / "out.arrow")[0]["audio"] == str(tmp_path / "clips" / "a.wav")
