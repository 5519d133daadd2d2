"""Names of columns: known, guessed, set, and those that may be several things."""

import json

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.prepare.columns import ALIASES, KNOWN_COLUMNS, TRANSCRIPTS, Columns
from tests.utils.data_commands import prepare


def test_no_alias_stands_for_two_columns():
    names = [*KNOWN_COLUMNS, *TRANSCRIPTS, *(name for some in ALIASES.values() for name in some)]
    assert len(names) == len(set(names)) and all(name == name.lower() for name in names)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_are_told_apart_whatever_they_are_called(folder, separator):
    lines = [("Datei", "Beschreibung"), ("a.wav", "Ein Mann spricht.")]
    (folder / "a.csv").write_text("\n".join(map(separator.join, lines)))
    (row,) = prepare(folder, "a.csv", "--columns", "wav=Datei", "caption=Beschreibung")
    assert row["global_captions"] == ["Ein Mann spricht."]


def test_a_guess_is_shown_once_and_taken(folder, capsys):
    rows = [
        {"Audio_FilePath": "a.wav", "text_description": "One.", "sex": "male"},
        {"Audio_FilePath": "sub/a.flac", "text_description": "Two.", "sex": "female"},
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = prepare(folder, "a.jsonl")
    assert (first["gender"], second["gender"]) == ("male", "female")
    assert [row["fine_captions"] for row in (first, second)] == [["One."], ["Two."]]
    printed = capsys.readouterr().out
    assert printed.count("took column") == 1
    assert "'Audio_FilePath' for wav, 'text_description' for caption, 'sex' for gender" in printed


def test_columns_are_set_also_labels_and_over_known_ones(folder, capsys):
    (folder / "a.csv").write_text("path,notes,caption,mood\na.wav,He whispers.,a text,calm\n")
    flags = ["--columns", "caption=notes", "labels.feeling=mood", "--ignore-columns", "caption"]
    (row,) = prepare(folder, "a.csv", *flags)
    assert row["fine_captions"] == ["He whispers."] and row["labels"] == {"feeling": "calm"}
    assert "took column" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("wav,description,prompt", {}, r"but \['description', 'prompt'\].*caption=description"),
        ("filepath,filename,caption", {}, r"no column 'wav', but \['filepath', 'filename'\]"),
        ("wav,caption,spk,speaker_id", {}, r"no column 'speaker', but \['spk', 'speaker_id'\]"),
        ("wav,caption,notes", {"caption": "notes"}, r"\['caption'\] more than once: leave one"),
        ("wav,caption", {"speaker": "who"}, "no column 'who', which --columns names for speaker"),
        ("audio_filepath,duration,text", {}, "'text' is usually what is said.*caption=text"),
        ("wav,caption,labels.", {}, r"unknown columns \['labels.'\]"),
        ("wav,x", {}, r"unknown columns \['x'\]|has no column 'caption'"),
        ("x,y", {}, r"no column 'wav'; it has \['x', 'y'\].*--columns wav=NAME"),
    ],
)
def test_what_cannot_be_told_stops_with_the_choice(tmp_path, header, given, message):
    with pytest.raises(ValueError, match=f"a.csv: .*{message}"):
        Columns(given).rename(tmp_path / "a.csv", header.split(","))


def test_a_transcript_is_a_caption_only_if_that_is_said(folder, capsys):
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "good morning"}
    (folder / "a.jsonl").write_text(json.dumps(row))
    assert main(["prepare", str(folder / "a.jsonl"), "--output", str(folder / "o.arrow")]) == 2
    assert "'text' is usually what is said" in capsys.readouterr().err
    (row,) = prepare(folder, "a.jsonl", "--columns", "caption=text")
    assert row["fine_captions"] == ["good morning"] and row["start"] is None and row["id"] == "a"


def test_unknown_names_in_columns_are_told(folder, capsys):
    (folder / "a.csv").write_text("wav,caption\na.wav,A.\n")
    words = ["prepare", str(folder / "a.csv"), "--output", str(folder / "o.arrow"), "--columns"]
    assert main([*words, "captoin=x"]) == 2
    assert "--columns: ['captoin'] are not known columns: wav" in capsys.readouterr().err
    assert main([*words, "caption"]) == 2
    assert "'caption' is not of the form KEY=VALUE" in capsys.readouterr().err
