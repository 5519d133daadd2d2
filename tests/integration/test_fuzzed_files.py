"""Files that users write, spoilt in every way: right, or an error that names the file."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_clsp.annotation.texts import read_texts
from speechbrain_clsp.captions.perturbation import read_tables
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.probes import read_pairs
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.prepare import prepare_own
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line
from speechbrain_clsp.prepare.cuts import clip_from_cut
from speechbrain_clsp.prepare.entries import KNOWN_COLUMNS
from speechbrain_clsp.ratings import read_ratings, read_sheet
from tests.utils.small import tone, write

FUZZ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
EXPECTED = (ValueError, OSError, TypeError)
NUMBERS = st.integers(-2, 2**70) | st.floats() | st.just(10**400)
WORDS = st.sampled_from(
    ["a.wav", "A man.", "", " ", "0", "1", "0.05", "nan", "inf", "-1", "id", "é"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
COLUMNS = [*KNOWN_COLUMNS, "labels.mood", "labels", "type", "recording", "Caption", "x"]
ROWS = st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6).map(
    lambda row: {"wav": "a.wav", "caption": "A man."} | row
)
CUT = {
    "id": "c",
    "type": "MonoCut",
    "start": 0.05,
    "duration": 0.15,
    "channel": 0,
    "custom": {"labels": {"mood": "calm"}},
    "supervisions": [{"text": "T", "speaker": "s", "custom": {"long_captions": ["A man."]}}],
    "recording": {
        "id": "r",
        "sources": [{"type": "command", "source": "tail -c +1 a.wav | head -c 6444"}],
        "sampling_rate": 16000,
        "channel_ids": [0, 1],
        "duration": 0.2,
        "transforms": [],
    },
}


def paths_of(value, path=()) -> list[tuple]:
    """Return the places of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return [path] * bool(path) + [p for k, v in items for p in paths_of(v, (*path, k))]


def changed(value, path: tuple, new):
    """Return a JSON value with another value at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def spoilt(value) -> st.SearchStrategy:
    """Return a strategy of JSON values with one or two places changed."""
    one = st.tuples(st.sampled_from(paths_of(value)), VALUES)

    def apply(changes):
        result = value
        for path, new in changes:
            try:
                result = changed(result, path, new)
            except (TypeError, KeyError, IndexError):  # the first change removed the place
                pass
        return result

    return st.lists(one, min_size=1, max_size=2).map(apply)


@st.composite
def tables(draw, columns) -> bytes:
    """Return a table, perhaps with wrong cells, separators, encoding, marks and bytes."""
    header = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=7))
    cells = st.lists(WORDS | st.text(max_size=6), min_size=len(header) - 1, max_size=len(header))
    text = io.StringIO()
    separator = draw(st.sampled_from([",", ";", "\t"]))
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([header, *draw(st.lists(cells, max_size=4))])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    data = bytearray(text.getvalue().encode(encoding, "replace"))
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=2)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data)


def check_message(error: Exception, path) -> None:
    """Assert that an error names the file, in one piece of text that can be printed."""
    message = str(error)
    assert path.name in message, message
    message.encode()


def check_prepared(folder, path) -> None:
    """Prepare a file, without what is bad in it; all is a row or named."""
    try:
        count, errors = prepare_own(path, folder / "o.arrow", skip_bad=True, n_jobs=1)
    except EXPECTED as error:
        check_message(error, path)
        return
    assert all(path.name in error for error in errors), errors
    rows = list(Manifest(folder / "o.arrow"))
    assert len(rows) == count and all(r["global_captions"] or r["fine_captions"] for r in rows)
    assert all(0.1 <= row["duration"] <= 0.21 for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one clip of 0.2 s."""
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / "a.wav", tone(0.2))
    return folder


@FUZZ
@given(data=tables(COLUMNS))
def test_tables(folder, data):
    (folder / "table.csv").write_bytes(data)
    check_prepared(folder, folder / "table.csv")


@FUZZ
@given(rows=st.lists(ROWS, min_size=1, max_size=4), whole=st.booleans())
def test_json(folder, rows, whole):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows) if whole else "\n".join(map(json.dumps, rows)))
    check_prepared(folder, path)


@FUZZ
@given(
    data=st.binary(max_size=60),
    name=st.sampled_from(["b.csv", "b.json", "b.jsonl.gz", "b.parquet"]),
)
def test_bytes(folder, data, name):
    (folder / name).write_bytes(data)
    check_prepared(folder, folder / name)


@FUZZ
@given(cuts=st.lists(spoilt(CUT), min_size=1, max_size=3))
def test_cuts(folder, cuts):
    (folder / "cuts.jsonl").write_text("\n".join(map(json.dumps, cuts)))
    check_prepared(folder, folder / "cuts.jsonl")
    for cut in cuts:
        try:
            clip_from_cut(parse_line(json.dumps(cut).encode()), text_is_caption=True)
        except UnusableClipError as error:
            assert error.reason


TASK = {"sex": {"column": "gender", "prompts": {"m": ["A man."]}, "pool": "max"}}
TASK["sex"] |= {
    "template": "{}",
    "ensemble": ["{}!"],
    "values": {"male": "m"},
    "below": {"m": None},
}
TABLES = {
    "mood": {"calm": [{"phrases": ["calm"], "opposites": ["angry"]}]},
    "gender": {"pairs": [["he", "she"]]},
    "accent": {"groups": {"british": ["scottish"]}, "overlaps": [["a", "b"]], "display": {}},
}
PAIR = dict.fromkeys(("kind", "attribute", "side", "anchor", "true", "false"), "order")
PAIR |= {"side": "captions", "anchor": "c"}
TEXT = {"id": "a", "caption": "A man."}
READERS = {
    "tasks": (TASK, lambda path: read_tasks(path, ensemble=True)),
    "swaps": (TABLES, read_tables),
    "pairs": (PAIR, lambda path: read_pairs(path, {"c"})),
    "texts": (TEXT, lambda path: read_texts(path, "caption")),
}


@pytest.mark.parametrize("kind", READERS)
@FUZZ
@given(data=st.data())
def test_json_of_other_kinds(folder, kind, data):
    value, read = READERS[kind]
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(data.draw(spoilt(value) | VALUES)))
    try:
        assert read(path) is not None
    except EXPECTED as error:
        check_message(error, path)


RATING_COLUMNS = ["clip", "caption", "category", "rater", "rating", "x"]
SHEET_COLUMNS = ["item", "correctness", "coverage", "naturalness", "x"]


@FUZZ
@given(ratings=tables(RATING_COLUMNS), sheet=tables(SHEET_COLUMNS), texts=tables(["id", "caption"]))
def test_tables_of_other_kinds(folder, ratings, sheet, texts):
    (folder / "key.csv").write_text("item,id,source,caption\n1,a,ours,A man.\n")
    for name, data, read in (
        ("ratings.csv", ratings, read_ratings),
        ("sheet.csv", sheet, lambda path: read_sheet(path, folder / "key.csv", "ann")),
        ("texts.csv", texts, lambda path: read_texts(path, "caption")),
    ):
        (folder / name).write_bytes(data)
        try:
            assert read(folder / name) is not None
        except EXPECTED as error:
            check_message(error, folder / name)
