"""Tables of ratings: what is read, and what is refused."""

import numpy as np
import pytest

from speechbrain_clsp.evaluation.similarity import describe
from speechbrain_clsp.ratings import SLIDER, Rating, RatingStore, read_ratings, write_table

NAN = np.nan


def test_ratings_are_read_and_checked(tmp_path):
    path = tmp_path / "ratings.csv"
    header = "rater,clip,caption,category,rating\n"
    good = 'r1,a.wav,"He shouts, loudly.",intrinsic,4\nr2,b.wav,Low.,fusion,1.5\n'
    path.write_text(header + good, encoding="utf-8-sig")
    found = read_ratings(path)
    assert found.items == [("a.wav", "He shouts, loudly."), ("b.wav", "Low.")]
    np.testing.assert_array_equal(found.scores, [[4, NAN], [NAN, 1.5]])
    assert describe(found)["ratings"] == 2
    for line, reason in (
        ("r1,b.wav,Low.,fusion,high", "line 4.*'high' is not a number"),
        ("r1,b.wav,Low.,fusion,", "line 4"),
        ("r1,b.wav,Low.", "line 4.*ends before category"),
        ("r2,b.wav,Low.,fusion,2", "'r2' rated"),
        ("r3,b.wav,Low.,intrinsic,2", "two categories"),
    ):
        path.write_text(header + good + line)
        with pytest.raises(ValueError, match=reason):
            read_ratings(path)
    path.write_text("clip,rating\na,1\n")
    with pytest.raises(ValueError, match="caption"):
        read_ratings(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="ratings.csv, line 1: the byte"):
        read_ratings(path)


def test_a_store_and_its_table_hold_the_same_ratings(tmp_path):
    draw = np.random.default_rng(0)
    some = [
        Rating(f"{n}.wav", 'A "man",\r\nwho shouts.', "fusion", rater, "style", draw.uniform(0, 5))
        for n in range(5)
        for rater in ("Ann", "Bob")
    ]
    with RatingStore(tmp_path / "r.sqlite") as store:
        assert store.add(some, SLIDER) == 10
        write_table(tmp_path / "r.csv", store.ratings())
    stored, table = (read_ratings(tmp_path / name) for name in ("r.sqlite", "r.csv"))
    assert (stored.items, stored.raters) == (table.items, table.raters)
    np.testing.assert_allclose(stored.scores, table.scores, rtol=1e-5)


def test_tables_of_spreadsheets_are_read(tmp_path):
    text = 'Clip;Caption;Category;Rater;Rating\na.wav;"He shouts; loudly.";fusion;r1;4\n'
    (tmp_path / "r.csv").write_text(text, encoding="utf-16")
    assert read_ratings(tmp_path / "r.csv").items == [("a.wav", "He shouts; loudly.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.wav,He shouts, loudly.,fusion,r1,4\n", "line 2: has more cells.*quotation"),
        ("a.wav,Caf\udce9,fusion,r1,4\n", "line 2: the byte 0xe9"),
    ],
)
def test_a_line_that_would_be_misread_is_named(tmp_path, text, message):
    data = f"clip,caption,category,rater,rating\n{text}"
    (tmp_path / "r.csv").write_text(data, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=rf"r\.csv, {message}"):
        read_ratings(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("clip,caption,category,rater,rating,rating\n")
    with pytest.raises(ValueError, match=r"\['rating'\] more than once"):
        read_ratings(tmp_path / "r.csv")
