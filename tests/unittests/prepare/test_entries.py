"""Rows of tables, JSON, cuts and folders in the forms that people have them."""

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from speechbrain_clsp.prepare.columns import Columns
from speechbrain_clsp.prepare.entries import read_entries
from speechbrain_clsp.prepare.entry import Entry, ReadOptions

ROWS = [("a.wav", "A man, calm; then loud."), ("sub/b.flac", "Eine “Frau”.")]


def rows_of(path, ignored=()) -> list[tuple]:
    """Return audio and caption of the rows; what could not be read is a str."""
    found = []
    for entry in read_entries(path, ReadOptions(Columns(ignored=ignored))):
        if isinstance(entry, Entry):
            found.append((entry.values.get("wav"), entry.values.get("caption")))
        else:
            found.append(entry)
    return found


def table(separator: str, header=("wav", "caption")) -> str:
    lines = [header, *([wav, f'"{caption}"'] for wav, caption in ROWS)]
    return "".join(separator.join(line) + "\n" for line in lines)


OBJECTS = [{"wav": wav, "caption": caption} for wav, caption in ROWS]
FORMS = {
    "a.csv": table(","),
    "semicolons.csv": table(";"),
    "excel.csv": "sep=;\n" + table(";"),
    "tabs.csv": table("\t"),
    "a.tsv": table("\t"),
    "commas.tsv": table(","),
    "CAPITALS.CSV": table(",", ("Wav", " CAPTION ")),
    "a.jsonl": "\n".join(map(json.dumps, OBJECTS)),
    "lines.json": "\n\n".join(map(json.dumps, OBJECTS)),
    "capitals.jsonl": "\n".join(json.dumps({k.title(): v for k, v in o.items()}) for o in OBJECTS),
    "array.json": json.dumps(OBJECTS),
    "array.jsonl": json.dumps(OBJECTS, indent=2),
    "by_id.json": json.dumps(dict(zip("xy", OBJECTS))),
    "by_id_indented.json": json.dumps(dict(zip("xy", OBJECTS)), indent=1, ensure_ascii=False),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_and_encoding_gives_the_same_rows(tmp_path, name, encoding, compress):
    data = FORMS[name].encode(encoding)
    path = tmp_path / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(data) if compress else data)
    assert rows_of(path) == ROWS


def test_objects_by_id_have_these_ids(tmp_path):
    (tmp_path / "a.json").write_text(FORMS["by_id.json"])
    assert [entry.values["id"] for entry in read_entries(tmp_path / "a.json")] == ["x", "y"]


def test_further_columns_are_named_with_both_ways_out(tmp_path):
    text = "wav,caption,Color,my column\na.wav,A.,red,x\n"
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv: unknown columns \['Color', 'my column'\]") as e:
        rows_of(tmp_path / "a.csv")
    assert "--ignore-columns Color 'my column'" in str(e.value) and "labels.<name>" in str(e.value)
    assert rows_of(tmp_path / "a.csv", {"Color", "my column"}) == [("a.wav", "A.")]
    (tmp_path / "a.jsonl").write_text(json.dumps({"wav": "a.wav", "caption": "A.", "Color": 1}))
    assert "unknown columns ['Color']" in rows_of(tmp_path / "a.jsonl")[0]
    assert rows_of(tmp_path / "a.jsonl", {"Color"}) == [("a.wav", "A.")]


@pytest.mark.parametrize(
    "text",
    ["wav,caption,caption\na.wav,One.,Two.\n", "wav,caption,Caption\na.wav,One.,Two.\n"],
)
def test_two_columns_of_one_name_are_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv: has the columns \['caption'\] more than once"):
        rows_of(tmp_path / "a.csv")


def test_two_keys_of_one_name_are_a_bad_row(tmp_path):
    good = '{"wav": "a.wav", "caption": "One."}\n'
    (tmp_path / "a.jsonl").write_text(
        good
        + '{"wav": "a.wav", "caption": "One.", "caption": "Two."}\n'
        + '{"wav": "a.wav", "caption": "One.", "Caption": "Two."}\n'
        + good
    )
    first, twice, capitals, last = rows_of(tmp_path / "a.jsonl")
    assert first == last == ("a.wav", "One.")
    assert "a.jsonl row 2" in twice and "'caption' twice" in twice and "'Two.'" in twice
    assert "a.jsonl row 3" in capitals and "more than once" in capitals


def test_two_parquet_columns_of_one_name_are_refused(tmp_path):
    columns = [pyarrow.array(["a.wav"]), pyarrow.array(["One."]), pyarrow.array(["Two."])]
    names = ["wav", "caption", "Caption"]
    pyarrow.parquet.write_table(pyarrow.table(columns, names), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"\['caption'\] more than once"):
        rows_of(tmp_path / "a.parquet")


def test_bytes_that_are_not_utf8_cost_their_row_alone(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"wav,caption\na.wav,Caf\xe9.\nb.wav,Tea.\n")
    bad, good = rows_of(tmp_path / "a.csv")
    assert "a.csv row 2: the byte 0xe9 in line 2 is not UTF-8" in bad and good == ("b.wav", "Tea.")
    lines = b'{"wav": "a.wav", "caption": "Caf\xe9."}\n{"wav": "b.wav", "caption": "Tea."}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    bad, good = rows_of(tmp_path / "a.jsonl")
    assert "a.jsonl row 1" in bad and "0xe9" in bad and good == ("b.wav", "Tea.")


def test_in_a_folder_a_bad_text_costs_its_clip_and_hidden_files_nothing(tmp_path):
    for name in ("good", "bad", "._good", "__MACOSX/good", ".trash/good"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.wav").touch()
        (tmp_path / f"{name}.txt").write_text(f"Of {name}.\r\n\r\nMore.", encoding="utf-16")
    (tmp_path / "bad.txt").write_bytes(b"One.\nCaf\xe9.\n")
    (tmp_path / "phone.m4a").touch()
    bad, good, phone = rows_of(tmp_path)
    assert "bad.txt, line 2: the byte 0xe9 is not UTF-8" in bad
    assert good == ("good.wav", ["Of good.", "More."])
    assert phone == ("phone.m4a", [])  # decoded by PyAV, or told


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_of_splits_is_read_from_their_folders(tmp_path, name):
    row = {"file_name": "a.wav", "caption": "A man."}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        path = tmp_path / split / name
        if name.endswith("csv"):
            path.write_text("file_name,caption\na.wav,A man.\n")
        elif name.endswith("jsonl"):
            path.write_text(json.dumps(row))
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    entries = list(read_entries(tmp_path))
    assert [entry.audio() for entry in entries] == [
        str(tmp_path / split / "a.wav") for split in ("train", "val")
    ]
    assert [entry.values["split"] for entry in entries] == ["train", "val"]
    (tmp_path / "train" / "metadata.csv").write_text("file_name,caption\na.wav,A man.\n")
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"train: has metadata.csv and metadata.jsonl"):
        list(read_entries(tmp_path))


CUT = {"id": "c", "start": 0, "duration": 1, "type": "MonoCut"}
CUT |= {"supervisions": [{"custom": {"long_captions": ["A man."]}}]}
CUT |= {"recording": {"sources": [{"type": "file", "source": "c.wav"}]}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "p", "type": "PaddingCut", "duration": 1, "num_frames": 9}, "is a PaddingCut"),
        (
            {"id": "m", "type": "MixedCut", "tracks": [{"cut": CUT}]},
            "is a MixedCut.*save its audio",
        ),
        ({"id": "m", "tracks": [{"cut": CUT}]}, "no caption|MixedCut"),
        ({"id": "m", **CUT, "type": "MultiCut"}, "is a MultiCut"),
        ({"id": "r", "sources": [], "sampling_rate": 16000, "duration": 1}, "recording of lhotse"),
        ({"id": "s", "recording_id": "r", "start": 0, "duration": 1}, "supervision of lhotse"),
        ([], "not a JSON object"),
        (3, "not a JSON object"),
        ({**CUT, "recording": {"sampling_rate": float("inf")}}, "malformed|captions"),
    ],
)
def test_what_is_no_cut_of_one_channel_costs_its_row_alone(tmp_path, record, message):
    (tmp_path / "cuts.jsonl").write_text("\n".join(map(json.dumps, [CUT, record, CUT])))
    first, other, last = rows_of(tmp_path / "cuts.jsonl")
    assert first[0] == last[0] == "c.wav"
    assert isinstance(other, str) and "cuts.jsonl row 2" in other
    assert re.search(message, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shard-000.tar.gz", "is a compressed tar file: gunzip it"),
        ("a.zip", "is an archive"),
        ("a.xlsx", "is a workbook.*CSV"),
        ("wav.scp", "is a table of Kaldi: give its folder"),
        ("train.arrow", "is a manifest"),
        ("a.wav", "is one audio file: give its folder"),
        ("a.m4a", "is one audio file"),
        ("a.txt", r"must be a \.csv"),
    ],
)
def test_other_files_are_named_by_what_they_are(tmp_path, name, message):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["state.json", "data-00000-of-00001.arrow"], "datasets cannot read it"),
        (["dataset_dict.json"], "datasets cannot read it"),
        (["recordings.jsonl.gz", "supervisions.jsonl.gz"], "lhotse cut simple"),
        (["a.parquet"], "is not a parquet file"),
        (["a.docx"], "has no audio files"),
    ],
)
def test_other_folders_are_named_by_what_they_are(tmp_path, names, message):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"bytes": b"RIFF", "path": None}, "is an Audio of datasets"),
        ({"bytes": b"RIFF", "path": "a.wav"}, "save the sounds as files"),
        ({"array": [0.0], "sampling_rate": 16000, "path": None}, "is an Audio of datasets"),
        (3, "is a int, not the path of a file"),
        ("https://example.org/a.wav", "is the address .*download it first"),
        ("a\0.wav", "zero byte"),
    ],
)
def test_audio_that_is_no_path_is_named_by_what_it_is(tmp_path, value, message):
    entry = Entry("data.parquet row 1", {"audio": value}, tmp_path)
    with pytest.raises(ValueError, match=f"data.parquet row 1, column 'audio'.*{message}") as error:
        entry.audio()
    assert len(str(error.value)) < 300


def test_an_audio_of_datasets_that_is_a_file_is_taken(tmp_path):
    entry = Entry("row 1", {"audio": {"bytes": None, "path": "a.wav"}}, tmp_path)
    assert entry.audio() == str(tmp_path / "a.wav")


def test_two_audio_columns_must_name_one_file(tmp_path):
    assert Entry("row 1", {"wav": "a.wav", "path": "a.wav"}, tmp_path).audio()
    with pytest.raises(ValueError, match="'wav': is another file than 'path' names"):
        Entry("row 1", {"wav": "a.wav", "path": "b.wav"}, tmp_path).audio()


@pytest.mark.parametrize("value", [True, -1, "nan", "inf", 1.5, [0], "left", 10**400])
def test_a_channel_is_a_whole_number(tmp_path, value):
    with pytest.raises(ValueError, match="row 1, column 'channel': is"):
        Entry("row 1", {"channel": value}, tmp_path).channel()
    assert Entry("row 1", {"channel": "1"}, tmp_path).channel() == 1


@pytest.mark.parametrize("value", [True, ["male"], {"a": 1}, b"male"])
def test_a_label_that_is_no_text_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="row 1, column 'gender': is .*not a text"):
        Entry("row 1", {"gender": value}, tmp_path).text("gender")


def test_missing_values_are_missing_not_words(tmp_path):
    entry = Entry("row 1", {"gender": float("nan"), "speaker": None, "accent": " ", "id": 7}, ".")
    assert [entry.text(name) for name in ("gender", "speaker", "accent", "id")] == [
        None,
        None,
        None,
        "7",
    ]


def test_columns_to_leave_out_that_are_not_there_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("wav,caption,color\na.wav,A man speaks.,red\n")
    with pytest.raises(ValueError, match=r"a\.csv: has no columns \['colour'\] to leave out"):
        rows_of(path, ["colour"])


def test_options_that_nothing_in_a_source_uses_are_told(tmp_path):
    def fails(name, message, **options):
        with pytest.raises(ValueError, match=message):
            list(read_entries(tmp_path / name, ReadOptions(**options)))

    (tmp_path / "a.jsonl").write_text('{"wav": "a.wav", "caption": "A.", "mood": "calm"}\n')
    kaldi, folder = tmp_path / "kaldi", tmp_path / "folder"
    for path in (kaldi, folder):
        path.mkdir()
    (kaldi / "wav.scp").write_text("u a.wav\n")
    (kaldi / "captions").write_text("u A.\n")
    (folder / "a.wav").touch()
    absent = r"has no columns \['mod'\], which --columns or --ignore-columns names"
    for name in ("a.jsonl", "kaldi", "folder"):
        ignored = ["mood", "mod"] if name == "a.jsonl" else ["mod"]
        fails(name, absent, columns=Columns(ignored=ignored))
        fails(name, absent, columns=Columns({"labels.mood": "mod"}, ignored=ignored[:-1]))
    fails("a.jsonl", "--captions is for data folders of Kaldi", captions_file="captions")
    fails("kaldi", "--streaming is for data sets of the Hub", streaming=True)


def test_columns_that_many_rows_share_are_explained_once(tmp_path):
    lines = ['{"wav": "a.wav", "caption": "A.", "mood": "calm"}'] * 3
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    first, second, third = read_entries(tmp_path / "a.jsonl")
    assert "unknown columns ['mood']" in first
    assert second.endswith("a.jsonl row 1, which cannot be used") and "row 3: " in third
