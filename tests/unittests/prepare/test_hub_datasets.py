"""Data sets of the library datasets, which is run for real on local ones."""

import sys
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.prepare import hub_datasets, prepare_own
from speechbrain_clsp.prepare.columns import Columns
from speechbrain_clsp.prepare.entries import read_entries
from speechbrain_clsp.prepare.entry import ReadOptions
from tests.utils.data_commands import prepare
from tests.utils.small import tone, write


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Keep what the library stores out of the user's cache, and off the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def columns_of(folder: Path, embedded: bool) -> dict[str, list]:
    """Return a data set with three clips, of which two hold the same sound."""
    audio = []
    for name, seconds in (("a.wav", 1.0), ("b.flac", 1.5), ("c.wav", 1.0)):
        path = write(folder / name, tone(seconds))
        audio.append({"bytes": path.read_bytes() if embedded else None, "path": str(path)})
    if embedded:
        for sound, name in zip(audio, ("a.wav", "b.flac", None)):
            sound["path"] = name
            if name:
                (folder / name).unlink()
    return {
        "recording": audio,
        "text_description": ["A man.", "A woman.", "He is calm."],
        "gender": [0, 1, 0],
    }


FEATURES = datasets.Features(
    {
        "recording": datasets.Audio(),
        "text_description": datasets.Value("string"),
        "gender": datasets.ClassLabel(names=["male", "female"]),
    }
)


def data_set(folder: Path, embedded: bool = True) -> datasets.Dataset:
    folder.mkdir()
    # From a table: the library's own encoder of audio would need torchcodec.
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = columns_of(folder, embedded)
    audio = pyarrow.array(columns.pop("recording"), kind)
    table = pyarrow.table({"recording": audio, **columns})
    return datasets.Dataset(datasets.table.InMemoryTable(table)).cast(FEATURES)


def test_audio_in_a_saved_data_set_is_stored_once_beside_the_manifest(tmp_path, capsys):
    data_set(tmp_path / "clips").save_to_disk(tmp_path / "saved")
    rows = prepare(tmp_path, "saved")
    # Equal sounds are one clip.
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["fine_captions"] == ["A man.", "He is calm."]
    assert [row["gender"] for row in rows] == ["male", "female"]
    assert np.allclose(ClipReader()(rows[1]), tone(1.5), atol=1e-4)
    (shard,) = (tmp_path / "out-audio").iterdir()
    assert {row["audio"] for row in rows} == {str(shard)}
    printed = capsys.readouterr().out
    assert "'recording' for wav, 'text_description' for caption" in printed
    again = (tmp_path / "out.arrow").read_bytes()
    assert prepare(tmp_path, "saved") == rows
    assert (tmp_path / "out.arrow").read_bytes() == again
    assert list((tmp_path / "out-audio").iterdir()) == [shard]


def test_audio_in_files_stays_there(tmp_path):
    (tmp_path / "clips").mkdir()
    columns = columns_of(tmp_path / "clips", embedded=False)
    del columns["gender"]
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    rows = prepare(tmp_path, "t.parquet", "--columns", "audio=recording")
    assert [row["audio"] for row in rows] == [
        str(tmp_path / "clips" / name) for name in ("a.wav", "b.flac", "c.wav")
    ]
    assert [row["id"] for row in rows] == ["clips-a", "clips-b", "clips-c"]
    assert not (tmp_path / "out-audio").exists()


def test_splits_are_kept_and_chosen(tmp_path, capsys):
    whole = data_set(tmp_path / "clips")
    parts = {"train": whole.select([0, 1]), "test": whole.select([2])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    rows = prepare(tmp_path, "saved", "--skip-bad")
    assert [row["split"] for row in rows] == ["train", "train"]
    # The sound of the third is that of the first.
    assert "column 'split': is 'test', but 'train' in" in capsys.readouterr().out
    (row,) = prepare(tmp_path, "saved", "--split", "test")
    assert (row["split"], row["id"]) == ("test", "test-1")
    words = ["prepare", str(tmp_path / "saved"), "--output", str(tmp_path / "o.arrow")]
    assert main([*words, "--split", "dev"]) == 2
    assert "has no split 'dev'; it has ['test', 'train']" in capsys.readouterr().err


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_without_decoding(tmp_path, streaming):
    (tmp_path / "data").mkdir()
    data_set(tmp_path / "clips").to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    options = ReadOptions(split="train", streaming=streaming)
    entries = list(hub_datasets.entries_of_dataset(tmp_path / "data", options))
    assert [entry.values["caption"] for entry in entries] == ["A man.", "A woman.", "He is calm."]
    assert [entry.values["gender"] for entry in entries] == ["male", "female", "male"]
    assert all(entry.values["wav"]["bytes"] for entry in entries)
    assert {entry.values["split"] for entry in entries} == {"train"}
    some = ReadOptions(split="train[:2]")
    assert len(list(hub_datasets.entries_of_dataset(tmp_path / "data", some))) == 2


def test_audio_that_a_stream_finds_in_an_archive_is_fetched(tmp_path):
    sound = write(tmp_path / "a.wav", tone(0.5))
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(sound, "en/a.wav")
    address = f"zip://en/a.wav::{tmp_path}/clips.zip"
    found = hub_datasets._fetched({"bytes": None, "path": address})
    assert found == {"bytes": sound.read_bytes(), "path": "a.wav"}
    with pytest.raises(OSError):
        hub_datasets._fetched({"bytes": None, "path": address.replace("clips", "none")})


def test_files_that_datasets_itself_cannot_read_without_torchcodec_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    write(tmp_path / "a.wav", tone(0.5))
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.wav,A man.\n")
    options = ReadOptions(split="train", streaming=True)
    with pytest.raises(ValueError, match=r"datasets cannot read it.*torchcodec.*hf download"):
        list(hub_datasets.entries_of_dataset(tmp_path, options))
    assert [entry.values["caption"] for entry in read_entries(tmp_path)] == ["A man."]


def test_parquet_files_of_datasets_are_read_without_it(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    whole = data_set(tmp_path / "clips")
    whole.select([0, 1]).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    whole.select([2]).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    flags = ["--columns", "audio=recording", "--ignore-columns", "gender"]
    (row,) = prepare(tmp_path, "data", "--split", "test", *flags)
    assert row["split"] == "test" and np.allclose(ClipReader()(row), tone(1.0), atol=1e-4)


def test_bytes_in_a_parquet_column_are_audio_too(tmp_path):
    sound = write(tmp_path / "a.wav", tone(0.5)).read_bytes()
    table = pyarrow.table({"wav": [sound, b"no sound"], "caption": ["A.", "B."]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    (row,) = prepare(tmp_path, "t.parquet", "--skip-bad")
    assert row["duration"] == 0.5 and row["fine_captions"] == ["A."]


def test_wrong_data_sets_leave_nothing_behind(tmp_path, capsys):
    table = {"audio": [{"bytes": b"version https://git-lfs", "path": None}], "caption": ["A."]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    words = ["prepare", str(tmp_path / "t.parquet"), "--output", str(tmp_path / "o.arrow")]
    assert main(words) == 2
    assert "t.parquet row 1, column 'wav'" in (error := capsys.readouterr().err)
    assert "git lfs pull" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, capsys):
    data_set(tmp_path / "clips").save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    for source, start in (("saved", "saved: to read"), ("org/name", "No file or folder org/name")):
        assert main(["prepare", source, "--output", "o.arrow"]) == 2
        error = capsys.readouterr().err
        assert start in error and "pip install 'speechbrain-clsp[datasets]'" in error


def test_a_name_that_neither_disk_nor_hub_have_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "org/name-that-is-not-there", "--output", "o.arrow"]) == 2
    error = capsys.readouterr().err
    assert "No file or folder org/name-that-is-not-there; nor can datasets read it" in error
    assert error.count("\n") == 1
    assert main(["prepare", "org/data.csv", "--output", "o.arrow"]) == 2
    assert "No file or folder org/data.csv" in capsys.readouterr().err


def test_columns_that_are_not_there_are_told(tmp_path):
    data_set(tmp_path / "clips").save_to_disk(tmp_path / "saved")
    options = ReadOptions(Columns({"caption": "notes"}))
    with pytest.raises(ValueError, match="has no column 'notes', which --columns names"):
        list(read_entries(tmp_path / "saved", options))
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="saved: datasets cannot read it"):
        prepare_own(tmp_path / "saved", tmp_path / "o.arrow")


def test_many_rows_with_audio_take_the_memory_of_few(tmp_path):
    rng = np.random.default_rng(0)
    table = {"wav": [], "caption": []}
    for number in range(48):
        path = write(tmp_path / "a.wav", 0.1 * rng.standard_normal(250_000))
        table["wav"].append(path.read_bytes())
        table["caption"].append(f"Clip {number}.")
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet", row_group_size=8)
    size = sum(map(len, table["wav"]))
    del table
    tracemalloc.start()
    count, _ = prepare_own(tmp_path / "t.parquet", tmp_path / "o.arrow", n_jobs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 48 and size > 23e6 and peak < size / 2
