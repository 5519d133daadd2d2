"""Tables of how alike clips sound: what is read, and what is refused."""

import numpy as np
import pytest

from speechbrain_clsp.ratings import Choices, read_alike


def test_pairs_are_read_with_and_without_raters(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("First;Second;Rating\na.wav;b.wav;4\na.wav;c.wav;1.5\n", encoding="utf-8-sig")
    found = read_alike(path)
    assert found.items == [("a.wav", "b.wav"), ("a.wav", "c.wav")]
    assert found.categories == ["all", "all"] and found.raters == [""]
    np.testing.assert_array_equal(found.scores, [[4.0], [1.5]])
    path.write_text("category,first,second,rater,rating\nx,a,b,r1,4\nx,a,b,r2,5\n,b,a,r1,3\n")
    found = read_alike(path)
    assert found.items == [("a", "b"), ("b", "a")] and found.categories == ["x", "all"]
    np.testing.assert_array_equal(found.scores, [[4, 5], [3, np.nan]])


def test_choices_are_read(tmp_path):
    path = tmp_path / "choices.csv"
    path.write_text("clip,nearer,farther,category\na,b,c,x\na,b,c,x\na,c,b,y\n")
    found = read_alike(path)
    assert isinstance(found, Choices) and found.items[2] == ("a", "c", "b")
    assert found.categories == ["x", "x", "y"]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("first,second\na,b\n", "line 1: lacks the columns .'rating'."),
        ("first,second,rating\na,b,high\n", "line 2: the rating 'high' is not a number"),
        ("first,second,rating\na,,3\n", "line 2: lacks second"),
        ("first,second,rating\na,b,3\na,b,4\n", "line 3: rater '' rated .* before"),
        ("first,second,rating,category\na,b,3,x\na,b,4,y\n", "line 3: .* two categories"),
        ("first,second,rating\n", "holds no rating"),
        ("clip,nearer,farther\na,b\n", "line 2: lacks farther"),
        ("clip,nearer,farther\n", "holds no choice"),
        ("clip,nearer,farther\na,b,c\na,b,b\n", "line 3: .* must be three clips"),
        ("clip,nearer,farther\na,a,b\n", "line 2: .* must be three clips"),
        ("first,second,rating,clip,nearer,farther\na,b,1,a,b,c\n", "make it two tables"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, reason):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_alike(tmp_path / "x.csv")
