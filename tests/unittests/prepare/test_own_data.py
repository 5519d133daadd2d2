"""Own recordings to a manifest, as a user runs it."""

import csv
import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
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
from tests.utils.videos import write_ffmpeg


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
    ({"wav": "text.wav", "caption": "A."}, "row 2, column 'wav'.*text.wav: cannot be read"),
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
    assert [row["id"] for row in prepare(folder, "a.csv", "--skip-bad")] == ["sub-a"]
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
        "a.csv": "has no column 'caption'; it has ['wav', 'text'], where 'text' is usually",
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


def failing(folder, source, capfd, *flags) -> str:
    """Run the command, which must fail; returns its error in one line."""
    arguments = ["prepare", str(folder / source), "--output", str(folder / "o.arrow"), *flags]
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and not (folder / "o.arrow").exists()
    return error


def test_channels_of_a_call_are_clips_of_their_own(folder):
    both = np.stack([tone(1.0, frequency=100), tone(1.0, frequency=200)], axis=1)
    write(folder / "call.wav", both)
    (folder / "a.csv").write_text(
        "wav,channel,caption,speaker\n"
        "call.wav,0,A customer.,c\ncall.wav,1,An agent.,a\ncall.wav,0.0,She is angry.,\n"
        "call.wav,,Two people.,\n"
    )
    first, second, mixed = prepare(folder, "a.csv")
    assert [row["id"] for row in (first, second, mixed)] == [
        "call-channel0",
        "call-channel1",
        "call",
    ]
    assert [row["channel"] for row in (first, second, mixed)] == [0, 1, None]
    assert first["fine_captions"] == ["A customer.", "She is angry."]
    assert second["fine_captions"] == ["An agent."] and second["speaker"] == "a"
    dataset = CaptionedSpeechDataset(Manifest(folder / "out.arrow"), TwoCaptions())
    assert np.allclose(dataset[1]["wav"], both[:, 1], atol=1e-4)


def test_labels_of_further_rows_are_kept(folder):
    (folder / "a.csv").write_text(
        "wav,caption,speaker,gender,split,intrinsic_tags,labels.mood,labels.age\n"
        "a.wav,One.,s1,,,deep,calm,\n"
        "a.wav,Two.,,male,train,raspy; deep,,30\n"
    )
    (row,) = prepare(folder, "a.csv")
    assert (row["speaker"], row["gender"], row["split"]) == ("s1", "male", "train")
    assert row["intrinsic_tags"] == ["deep", "raspy"]
    assert row["labels"] == {"mood": "calm", "age": "30"}


@pytest.mark.parametrize("column", ["gender", "speaker", "split", "labels.mood"])
def test_rows_that_contradict_each_other_are_told_by_both_lines(folder, capfd, column):
    (folder / "a.csv").write_text(
        f"wav,caption,{column}\na.wav,One.,\na.wav,Two.,x\nsub/a.flac,A.,y\na.wav,Three.,y\n"
    )
    error = failing(folder, "a.csv", capfd)
    assert f"a.csv row 5, column '{column}': is 'y', but 'x' in {folder}/a.csv row 3" in error
    rows = prepare(folder, "a.csv", "--skip-bad")
    assert rows[0]["fine_captions"] == ["One.", "Two."]


def test_a_caption_beside_both_other_kinds_is_not_lost(folder, capfd):
    row = {"wav": "a.wav", "caption": "A.", "global_caption": "B.", "fine_caption": "C."}
    (folder / "a.jsonl").write_text(json.dumps(row))
    assert "column 'caption': stands beside" in failing(folder, "a.jsonl", capfd)


def quiet_channels():
    return np.stack([tone(), -tone()], axis=1)


BAD_AUDIO = {
    "nan.wav": (np.full(16000, np.nan, np.float32), {"subtype": "FLOAT"}, "NaN"),
    "late_nan.wav": (np.append(tone(25), np.float32("nan")), {"subtype": "FLOAT"}, "NaN"),
    "silent.wav": (np.zeros(16000), {}, "is silent"),
    "hum.flac": (np.full(16000, 3e-5), {}, "is silent"),
    "loud.wav": (np.round(tone() * 32768), {"subtype": "FLOAT"}, "far beyond"),
    "quiet.wav": (np.round(tone() * 200), {"subtype": "FLOAT"}, "16-bit values as floats"),
    "opposite.wav": (quiet_channels(), {}, "its channels cancel each other"),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_sound_that_nothing_is_learned_from_is_found(folder, capfd, name):
    samples, options, message = BAD_AUDIO[name]
    write(folder / name, samples, **options)
    (folder / "a.csv").write_text(f"wav,caption\n{name},Bad.\na.wav,Good.\n")
    error = failing(folder, "a.csv", capfd)
    assert re.search(rf"1 bad rows: .*row 2, column 'wav': .*{name}: .*{message}", error)
    assert [row["id"] for row in prepare(folder, "a.csv", "--skip-bad")] == ["a"]
    printed = capfd.readouterr().out
    assert re.search(rf"1 rows left out(?s:.)*{name}: .*{message}", printed)
    assert "1 clips written" in printed


def test_a_channel_that_the_file_does_not_have_is_found(folder, capfd):
    (folder / "a.csv").write_text("wav,caption,channel\na.wav,A.,1\n")
    error = failing(folder, "a.csv", capfd)
    assert "row 2, column 'channel'" in error and "has 1 channels, not number 1, from 0" in error


def test_an_mp3_that_ends_before_its_header_says_is_found(folder, capfd):
    generator = np.random.default_rng(0)
    data = write(folder / "a.mp3", 0.3 * generator.standard_normal(320_000)).read_bytes()
    (folder / "cut.mp3").write_bytes(data[: len(data) // 4])
    (folder / "a.csv").write_text("wav,caption\ncut.mp3,A.\na.mp3,B.\n")
    error = failing(folder, "a.csv", capfd)
    assert re.search(r"cut.mp3: should last 20.00 s, and \d.\d\d s are there: it is cut off", error)
    (row,) = prepare(folder, "a.csv", "--skip-bad")
    assert row["id"] == "a" and row["duration"] == pytest.approx(20)
    # What is there may be used.
    (folder / "a.csv").write_text("wav,caption,start,duration\ncut.mp3,A.,0,3\ncut.mp3,A.,3,9\n")
    assert "row 3, column 'wav'" in failing(folder, "a.csv", capfd)
    (row,) = prepare(folder, "a.csv", "--skip-bad")
    assert (row["start"], row["duration"]) == (0, 3)


def test_a_cut_of_a_part_is_no_cut_of_the_whole_file(folder):
    cut = {"id": "c", "start": 0, "duration": 0.5, "type": "MonoCut"}
    cut |= {"supervisions": [{"custom": {"long_captions": ["A man."]}}]}
    cut |= {"recording": {"sources": [{"type": "file", "source": "a.wav"}]}}
    (folder / "cuts.jsonl").write_text(json.dumps(cut) + "\n" + json.dumps(cut | {"id": "d"}))
    rows = prepare(folder, "cuts.jsonl")
    assert [(row["start"], row["duration"]) for row in rows] == [(0.0, 0.5)] * 2
    dataset = CaptionedSpeechDataset(Manifest(folder / "out.arrow"), TwoCaptions())
    assert len(dataset[0]["wav"]) == 8000


def test_names_that_are_not_utf8_cost_their_clip_alone(tmp_path, capfd):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9", b"tea"):
        write(tmp_path / "tea.wav", tone(0.5))
        os.replace(tmp_path / "tea.wav", folder + b"/" + name + b".wav")
        with open(folder + b"/" + name + b".txt", "wb") as file:
            file.write(b"A man.\n")
    error = failing(tmp_path, ".", capfd)
    assert "is not UTF-8: rename it" in error and r"caf\xe9" in error
    assert [row["id"] for row in prepare(tmp_path, ".", "--skip-bad")] == ["tea"]
    assert r"caf\xe9" in capfd.readouterr().out


def test_columns_may_be_left_out(folder):
    (folder / "a.csv").write_text("wav,caption,color,Gender\na.wav,A.,red,?\n")
    (row,) = prepare(folder, "a.csv", "--ignore-columns", "color", "Gender")
    assert row["gender"] is None


def test_what_is_no_manifest_is_not_replaced(folder, capfd):
    (folder / "a.csv").write_text("wav,caption\na.wav,A.\n")
    (folder / "notes.arrow").write_text("my only copy")
    assert main(["prepare", str(folder / "a.csv"), "--output", str(folder / "notes.arrow")]) == 2
    assert "is not a manifest: it is left as it is" in capfd.readouterr().err
    assert (folder / "notes.arrow").read_text() == "my only copy"


def test_of_many_bad_rows_ten_are_shown_and_the_file_with_all_is_named(folder, capfd):
    lines = [f"none{i}.wav,A." for i in range(200)]
    (folder / "a.csv").write_text("wav,caption\na.wav,A.\n" + "\n".join(lines))
    error = failing(folder, "a.csv", capfd)
    assert "200 bad rows: " in error and "none9.wav" in error and "none10.wav" not in error
    assert "and 190 more. Correct them, or leave them out by --skip-bad" in error
    everything = Path(re.search(r"\(all are in (.+)\)", error)[1])
    assert everything.read_text().count("no file") == 200
    everything.unlink()


def test_a_table_without_header_is_told_so(folder, capfd):
    (folder / "a.csv").write_text("a.wav,A man.\n")
    assert "the first line must name the columns" in failing(folder, "a.csv", capfd)


def ids_of(folder, lines) -> list[str]:
    (folder / "ids.csv").write_text("wav,start,duration,caption\n" + "\n".join(lines) + "\n")
    return [row["id"] for row in prepare(folder, "ids.csv")]


def test_ids_are_short_unique_and_do_not_depend_on_later_rows(tmp_path):
    table, other = tmp_path / "table", tmp_path / "elsewhere"
    for path in ("table/s1/a", "table/s2/a", "table/s1-a", "elsewhere/x/s1/a", "elsewhere/y/b"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / f"{path}.wav", tone(1.0))
    write(table / "s1/a.flac", tone(1.0))
    lines = [
        "s1/a.wav,,,One.",
        "s2/a.wav,0.5,,Two.",
        "s1/a.flac,,,Three.",  # another file of that name
        f"{other}/y/b.wav,,,Four.",
        f"{other}/x/s1/a.wav,,,Five.",
        "s1-a.wav,,,Six.",
        "s2/a.wav,0.5,0.3,Seven.",  # another part from the same start
        "s2/a.wav,0,0.4,Eight.",
    ]
    ids = ids_of(table, lines)
    assert ids == [
        "s1-a",
        "s2-a-0.5",
        "s1-a.flac",
        "y-b",
        "x-s1-a",
        "s1-a.wav",
        "s2-a-0.5-0.8",
        "s2-a-0",
    ]
    for n in range(1, len(lines)):
        assert ids_of(table, lines[:n]) == ids[:n]


def test_a_duration_of_the_whole_file_is_no_part_of_it(folder):
    (folder / "a.csv").write_text("ID,duration,wav,caption\nu1,1.02,a.wav,A.\nu2,0.5,a.wav,B.\n")
    whole, part = prepare(folder, "a.csv")
    assert (whole["start"], whole["duration"]) == (None, 1.0)
    assert (part["start"], part["duration"]) == (0.0, 0.5)


@pytest.mark.parametrize("root", ["$data_root", "{data_root}", "${data_root}", "$data_folder"])
def test_manifests_of_speechbrain_have_their_root_set(folder, root, capfd):
    target = folder / "manifests"
    target.mkdir()
    (target / "a.csv").write_text(f"ID,wav,spk_id,caption\nu,{root}/sub/a.flac,s1,A.\n")
    (target / "a.json").write_text(
        json.dumps({"u": {"wav": f"{root}/sub/a.flac", "spk_id": "s1", "caption": "A."}})
    )
    for name in ("manifests/a.csv", "manifests/a.json"):
        (row,) = prepare(folder, name, "--data-root", str(folder))
        assert (row["id"], row["speaker"]) == ("u", "s1")
        assert row["audio"] == str(folder / "sub/a.flac")
        assert "name its folder by --data-root" in failing(folder, name, capfd)


def test_relative_paths_may_start_elsewhere(folder, capfd):
    (folder / "manifests").mkdir()
    (folder / "manifests" / "a.csv").write_text("wav,caption\nsub/a.flac,A.\n")
    (row,) = prepare(folder, "manifests/a.csv", "--data-root", str(folder))
    assert row["audio"] == str(folder / "sub/a.flac") and row["id"] == "sub-a"
    assert "no file" in failing(folder, "manifests/a.csv", capfd)


def test_one_split_may_be_chosen(folder, capfd):
    (folder / "a.csv").write_text("wav,caption,split\na.wav,A.,train\nsub/a.flac,B.,test\n")
    assert [row["id"] for row in prepare(folder, "a.csv", "--split", "test")] == ["sub-a"]
    error = failing(folder, "a.csv", capfd, "--split", "dev")
    assert "no row is of the split 'dev'; it has ['test', 'train']" in error


def test_a_video_beside_its_caption_is_a_clip(tmp_path):
    write_ffmpeg(tmp_path / "a.webm", tone(1.5, 48000)[None], 48000, "libopus", "libvpx")
    (tmp_path / "a.txt").write_text("A man speaks.")
    (row,) = prepare(tmp_path, ".")
    assert row["id"] == "a" and row["duration"] == pytest.approx(1.5, abs=1e-6)


def sounds_table(folder, name, audio, **columns) -> Path:
    """Write a parquet file with sounds as Audio of datasets, or as bytes."""
    rows = [{"audio": sound, "caption": f"Voice {i}."} for i, sound in enumerate(audio)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    return folder / name


def test_sound_in_a_table_gets_its_id_from_its_own_path_or_its_row(tmp_path):
    sounds = []
    for i in range(6):
        sounds.append(write(tmp_path / f"{i}.wav", tone(0.3 + i / 10)).read_bytes())
    paths = ["a/x.wav", "b/x.wav", "/old/c/x.wav", "/old/d/x.wav", None, None]
    audio = [{"bytes": sound, "path": path} for sound, path in zip(sounds, paths)]
    sounds_table(tmp_path, "v1.5.parquet", audio)
    first = [row["id"] for row in prepare(tmp_path, "v1.5.parquet")]
    assert first == ["a-x", "b-x", "x", "d-x", "v1.5-5", "v1.5-6"]
    sounds_table(tmp_path, "plain.parquet", sounds)
    assert [row["id"] for row in prepare(tmp_path, "plain.parquet")][:2] == ["plain-1", "plain-2"]


def test_sound_in_a_table_that_cannot_be_used_is_named_as_the_table_does(tmp_path, capsys):
    sounds_table(
        tmp_path,
        "a.parquet",
        [{"bytes": b"no sound", "path": "x.wav"}, {"bytes": None, "path": None}, None],
    )
    assert main(["prepare", str(tmp_path / "a.parquet"), "--output", str(tmp_path / "o.arrow")])
    error = capsys.readouterr().err
    assert "row 1, column 'wav': x.wav: cannot be read as audio" in error
    assert "row 2, column 'audio': is empty: name an audio file" in error
    assert "row 3, column 'wav': is empty: name an audio file" in error
    assert ".partial" not in error


def test_a_relative_data_root_is_put_in_once_and_must_be_a_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "corpus").mkdir()
    write(tmp_path / "corpus" / "a.wav", tone(0.5))
    (tmp_path / "a.csv").write_text("ID,wav,caption,length\nu,$data_root/a.wav,A.,0.5\n")
    monkeypatch.chdir(tmp_path)
    (row,) = prepare(Path(), "a.csv", "--data-root", "corpus")
    assert os.path.abspath(row["audio"]) == str(tmp_path / "corpus" / "a.wav")
    assert "'length' for duration" in capsys.readouterr().out
    assert main(["prepare", "a.csv", "--output", "b.arrow", "--data-root", "carpus"]) == 2
    assert "carpus is not a folder" in capsys.readouterr().err
