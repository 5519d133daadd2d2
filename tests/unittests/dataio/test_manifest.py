"""The manifest at scale: every value comes back, from any batch, in any process."""

import pickle
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.dataio.manifest import SCHEMA, Manifest, write_batches, write_manifest
from tests.utils.small import ROW

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
TEXTS = st.lists(TEXT, max_size=3)
ROW_STRATEGY = st.fixed_dictionaries(
    {"duration": st.floats(0.1, 30)},
    optional={
        "audio": TEXT,
        "offset": st.none() | st.integers(0, 2**60),
        "sample_rate": st.none() | st.integers(1, 2**31 - 1),
        "start": st.none() | st.floats(0, 1e6),
        "speaker": st.none() | TEXT,
        "gender": st.none() | TEXT,
        "channel": st.none() | st.integers(0, 7),
        "labels": st.none() | st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
        "fine_captions": st.none() | TEXTS,
        "intrinsic_tags": TEXTS,
    },
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(ROW_STRATEGY, min_size=1, max_size=40), batch_rows=st.integers(1, 50))
def test_every_value_comes_back(tmp_path_factory, rows, batch_rows):
    """If this fails, nulls, empty lists or texts shift to other rows."""
    path = tmp_path_factory.mktemp("m") / "a.arrow"
    rows = [{"audio": "a.wav", **row, "id": str(i)} for i, row in enumerate(rows)]
    assert write_manifest(path, rows, batch_rows) == len(rows)
    manifest = Manifest(path)
    assert len(manifest) == len(rows)
    for number, (found, row) in enumerate(zip(manifest, rows)):
        expected = {**dict.fromkeys(SCHEMA.names), **row}
        for name in ("intrinsic_tags", "situational_tags", "global_captions", "fine_captions"):
            expected[name] = expected[name] or []
        expected["labels"] = expected["labels"] or {}
        audio = row["audio"]
        expected["audio"] = audio if audio.startswith("/") else f"{path.parent}/{audio}"
        assert found == expected and manifest[number] == expected
    assert manifest.column("speaker") == [row.get("speaker") for row in rows]
    assert np.array_equal(manifest.array("duration"), [row["duration"] for row in rows])


def test_rows_are_found_in_batches_of_any_size(tmp_path):
    """If this fails, joined parts give other rows than were prepared."""
    rows = [{"id": str(i), "audio": "a", "duration": 1.0 + i} for i in range(100)]
    for row in rows:
        for name in ("intrinsic_tags", "situational_tags", "global_captions", "fine_captions"):
            row[name] = [f"{name} {row['id']}"]
    bounds = [0, 3, 3, 50, 51, 99, 100]
    batches = (
        pa.RecordBatch.from_pylist(rows[start:end], schema=SCHEMA)
        for start, end in pairwise(bounds)
    )
    assert write_batches(tmp_path / "a.arrow", batches, batch_rows=16) == 100
    manifest = Manifest(tmp_path / "a.arrow")
    assert [b.num_rows for b in manifest.batches()] == [16] * 6 + [4]
    assert [row["id"] for row in manifest] == [row["id"] for row in rows]
    assert manifest[77]["fine_captions"] == ["fine_captions 77"]
    assert manifest[-1]["duration"] == 100.0


def test_ids_are_unique_across_batches(tmp_path):
    """If this fails, a clip is drawn twice per epoch and is its own negative."""
    rows = [{"id": str(i % 900), "audio": "a", "duration": 1.0} for i in range(1000)]
    with pytest.raises(ValueError, match=r"row 901 \(id '0'\): this id occurs twice"):
        write_manifest(tmp_path / "a.arrow", rows, batch_rows=64)
    assert not (tmp_path / "a.arrow").exists()


def test_manifests_of_earlier_versions_open(tmp_path):
    """If this fails, users must prepare their data again."""
    schema = pa.schema([field for field in SCHEMA if field.name != "channel"])
    row = {"id": "a", "audio": "a", "duration": 1.0, "labels": [("k", "v")]}
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for name in "ab":
            file.write_batch(pa.RecordBatch.from_pylist([{**row, "id": name}], schema=schema))
    manifest = Manifest(tmp_path / "a.arrow")
    assert [r["id"] for r in manifest] == ["a", "b"]
    assert manifest[1]["channel"] is None and manifest[1]["labels"] == {"k": "v"}
    lacking = pa.schema([field for field in schema if field.name != "speaker"])
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, lacking):
        pass
    with pytest.raises(ValueError, match="lacks.*speaker.*write it again"):
        Manifest(tmp_path / "b.arrow")


def test_a_process_gets_the_path_not_the_rows(tmp_path):
    """If this fails, each worker that is spawned copies gigabytes."""
    rows = [{"id": str(i), "audio": "a", "duration": 1.0} for i in range(5000)]
    write_manifest(tmp_path / "a.arrow", rows)
    manifest = Manifest(tmp_path / "a.arrow")
    assert manifest[4999]["audio"] == str(tmp_path / "a")
    data = pickle.dumps(manifest)
    assert len(data) < 500
    assert pickle.loads(data)[4999] == manifest[4999]


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no manifest" * 99])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    """If this fails, a wrong path ends in a library's riddle."""
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(ValueError, match="a.arrow is not a manifest"):
        Manifest(tmp_path / "a.arrow")


def test_a_manifest_gives_back_what_was_written(tmp_path):
    """If this fails, labels or captions are lost or shifted between rows."""
    rows = [{**ROW, "id": f"clip{i}", "duration": float(i + 1)} for i in range(10)]
    assert write_manifest(tmp_path / "a.arrow", iter(rows), batch_rows=3) == 10
    manifest = Manifest(tmp_path / "a.arrow")
    for i, row in enumerate(manifest):
        assert {key: row[key] for key in ROW if key != "audio"} == {
            key: value for key, value in rows[i].items() if key != "audio"
        }
        assert row["audio"] == str(tmp_path / "a.wav")
        assert row["accent"] is None and row["intrinsic_tags"] == []
    assert manifest[-1]["id"] == "clip9"
    with pytest.raises(IndexError):
        manifest[10]


@pytest.mark.parametrize(
    "rows, pattern",
    [
        ([{**ROW, "duration": None}], r"row 1 \(id 'a'\).*duration"),
        ([ROW, {**ROW, "color": 1, "id": "b"}], r"row 2 \(id 'b'\).*color"),
        ([ROW, ROW], "twice"),
    ],
)
def test_bad_rows_are_named_and_leave_no_manifest(tmp_path, rows, pattern):
    """If this fails, a bad row makes a manifest that breaks an hour into training."""
    with pytest.raises(ValueError, match=pattern):
        write_manifest(tmp_path / "a.arrow", rows)
    assert not (tmp_path / "a.arrow").exists()


def test_a_damaged_manifest_is_refused(tmp_path):
    """If this fails, a half copied manifest trains on half the data."""
    write_manifest(tmp_path / "a.arrow", [{**ROW, "id": str(i)} for i in range(50)])
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut off"):
        Manifest(tmp_path / "b.arrow")
    with pytest.raises(FileNotFoundError, match="prepare"):
        Manifest(tmp_path / "c.arrow")


def test_audio_of_a_manifest_with_a_relative_path_is_absolute(tmp_path, monkeypatch):
    write_manifest(tmp_path / "a.arrow", [{"id": "a", "audio": "a.wav", "duration": 1.0}])
    monkeypatch.chdir(tmp_path)
    manifest = Manifest("a.arrow")
    monkeypatch.chdir("/")
    assert manifest[0]["audio"] == str(tmp_path / "a.wav")


def test_another_file_is_not_replaced_by_a_manifest(tmp_path):
    path = tmp_path / "train.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, pa.schema([])):
        pass  # a table of another library
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="train.arrow exists and is not a manifest"):
        write_manifest(path, [ROW])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    path.unlink()
    for row in (ROW, ROW | {"id": "b"}):  # our own is
        write_manifest(path, [row])
    assert Manifest(path).column("id") == ["b"]


def test_a_manifest_without_clips_is_refused_by_name_and_may_be_replaced(tmp_path):
    path = tmp_path / "empty.arrow"
    assert write_manifest(path, []) == 0
    with pytest.raises(ValueError, match="empty.arrow holds no clips"):
        Manifest(path)
    assert write_manifest(path, [{"id": "a", "audio": "a.wav", "duration": 1.0}]) == 1
    assert len(Manifest(path)) == 1


def test_what_is_no_manifest_is_named_by_what_it_is(tmp_path):
    (tmp_path / "a.arrow").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="a.arrow is not a manifest.* a Git LFS pointer: run"):
        Manifest(tmp_path / "a.arrow")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("gender", 3),
        ("id", 7),
        ("duration", "long"),
        ("offset", 2**63),
        ("sample_rate", 2**31),
        ("fine_captions", 3),
        ("fine_captions", ["A man.", 3]),
        ("labels", {"mood": 3}),
        ("labels", "calm"),
        ("channel", 0.5),
        ("speaker", "\ud83d"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_row_and_column(tmp_path, column, value):
    rows = [{**ROW, "id": str(i)} for i in range(9)]
    rows[6][column] = value
    with pytest.raises(ValueError, match=rf"row 7 \(id .*column '{column}' is ") as error:
        write_manifest(tmp_path / "a.arrow", rows, batch_rows=4)
    str(error.value).encode()
    assert not (tmp_path / "a.arrow").exists()


def test_one_text_is_a_list_of_one_text(tmp_path):
    """If this fails, captions are trained on letter by letter."""
    write_manifest(tmp_path / "a.arrow", [{**ROW, "fine_captions": "A man.", "intrinsic_tags": ""}])
    (row,) = Manifest(tmp_path / "a.arrow")
    assert row["fine_captions"] == ["A man."]
