"""Conditions: sqlite3 is the judge of what SQL means, and wrong ones are explained."""

import sqlite3

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.search.filters import parse_condition

ROWS = [
    {"gender": g, "duration": d, "accent": a}
    for g in ("male", "female", None)
    for d in (0.5, 2.0, None, 7.25)
    for a in ("British", "it's", None)
]
TABLE = pa.Table.from_pylist(ROWS)
LEAF = st.sampled_from(
    [
        "gender = 'male'",
        "gender != 'male'",
        "'male' = gender",
        "2 < duration",
        "duration >= 2.0",
        "duration > -1",
        "duration BETWEEN 1 AND 7.25",
        "gender IN ('male', 'other')",
        "gender NOT IN ('male')",
        "accent LIKE 'Brit%'",
        "accent NOT LIKE '%t%'",
        "accent = 'it''s'",
        "accent IS NULL",
        "duration IS NOT NULL",
    ]
)
CONDITION = st.recursive(
    LEAF,
    lambda inner: (
        st.builds("({} AND {})".format, inner, inner)
        | st.builds("{} OR {}".format, inner, inner)
        | st.builds("NOT ({})".format, inner)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def base():
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA case_sensitive_like = ON")
    base.execute("CREATE TABLE clips (gender, duration, accent)")
    base.executemany("INSERT INTO clips VALUES (:gender, :duration, :accent)", ROWS)
    return base


@settings(max_examples=200, deadline=None)
@given(text=CONDITION)
def test_a_condition_holds_where_it_does_in_sql(base, text):
    """Also when it is written as SQL again, as the other engines get it."""
    condition = parse_condition(text, TABLE.schema)
    expected = [n - 1 for (n,) in base.execute(f"SELECT rowid FROM clips WHERE {text}")]
    again = base.execute(f"SELECT rowid FROM clips WHERE {condition.to_sql()}")
    assert condition.mask(TABLE).nonzero()[0].tolist() == expected
    assert [n - 1 for (n,) in again] == expected


def test_labels_and_lists_are_columns():
    rows = [{"labels": {"mood": "sad"}, "tags": ["loud", "fast"]}, {"labels": None, "tags": []}]
    rows += [{"labels": {"mood": None}, "tags": None}, {"labels": {"mood": "sad"}, "tags": ["low"]}]
    table = pa.Table.from_pylist(rows)
    table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    for text, expected in {
        "labels.mood = 'sad'": [0, 3],
        "array_has(tags, 'loud') OR array_has(tags, 'low')": [0, 3],
        "NOT array_has(tags, 'loud')": [1, 2, 3],
        "labels.mood IS NULL": [1, 2],
    }.items():
        found = parse_condition(text, table.schema).mask(table)
        assert found.nonzero()[0].tolist() == expected, text


@pytest.mark.parametrize(
    "text, pattern",
    [
        ("gendre = 'male'", "no column 'gendre'; did you mean 'gender'"),
        ("zzz = 1", "no column 'zzz'; there are gender, duration, tags"),
        ("gender = male", "gender must be compared with a text in single quotation marks"),
        ("gender = 3", "must be compared with a text"),
        ("duration > 'long'", "must be compared with a number, not with 'long'"),
        ("duration = NULL", "write duration IS NULL"),
        ("gender ==", "cannot be read: write it as SQL"),
        ("", "cannot be read"),
        ("gender = 'a'; DROP TABLE clips", "cannot be read"),
        ("gender = 'a' LIMIT 3", "cannot be read"),
        ("lower(gender) = 'a'", "is not a column"),
        ("gender", "is not one of the conditions"),
        ("gender LIKE 'a' ESCAPE '!'", "is not one of the conditions"),
        ("duration BETWEEN SYMMETRIC 3 AND 1", "is not one of the conditions"),
        ("gender IN (SELECT 1)", "is not one of the conditions"),
        ("tags = 'loud'", r"tags is a list: write array_has\(tags"),
        ("array_has(gender, 'a')", "gender is no list"),
        ("array_has(tags, loud)", "write 'loud'"),
        ("vector = 3", "no column 'vector'"),
        ("duration > 1e999", "1e999 is too large a number"),
        ("duration < -9223372036854775808", "9223372036854775808 is too large a number"),
    ],
    ids=range(21),
)
def test_a_wrong_condition_is_explained(text, pattern):
    vectors = pa.list_(pa.float16(), 2)
    schema = pa.schema({"gender": pa.string(), "duration": pa.float64()})
    schema = schema.append(pa.field("tags", pa.list_(pa.string())))
    with pytest.raises(ValueError, match=pattern):
        parse_condition(text, schema.append(pa.field("vector", vectors)))
