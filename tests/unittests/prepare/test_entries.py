"""Tables of every form, and sources that cannot be read."""

import csv
import gzip

import pyarrow
import pyarrow.parquet
import pytest

from speechbrain_clsp.cli.main import main
from tests.utils.data_commands import prepare

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
