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
    with pytest.raises(ValueError, match="ratings.csv is not a table"):
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
