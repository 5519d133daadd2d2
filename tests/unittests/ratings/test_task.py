"""What ``clsp rate`` takes as items and as output, and what it leaves as it is."""

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.ratings import RatingTask
from tests.utils.rating_items import write_items


@pytest.fixture
def folder(tmp_path):
    """Return a folder with clips of several formats and items.csv."""
    return write_items(tmp_path)


def test_items_that_cannot_be_rated_are_told_at_the_start(folder, capsys):
    items = folder / "items.csv"

    def error() -> str:
        assert main(["rate", str(items), "--output", str(folder / "r.csv"), "--port", "0"]) == 2
        return capsys.readouterr().err

    text = items.read_text()
    items.write_text(text + "gone.wav,A man.,fusion\n")
    assert "1 clips are not in" in error() and "gone.wav" not in text
    items.write_text(text + "clip 0.wav,,fusion\n")
    assert "line 8: clip, caption and category" in error()
    items.write_text(text + text.splitlines()[1] + "\n")
    assert "line 8: this clip and caption were there before" in error()
    items.write_text("clip,caption\n")
    assert "lacks the columns ['category']" in error()
    items.write_text(text)
    (folder / "r.csv").write_text("clip,caption,category,rater,rating\nx.wav,A,b,Ann,3\n")
    assert "line 2: not a rating of these items" in error()


HEADER = "clip,caption,category,rater,rating\n"
LINE = 'clip 0.wav,"A man, number 0: <b>caf\u00e9</b>",intrinsic,Ann,4'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "my only copy", "must end in .sqlite or .csv"),
        ("notes.csv", "my only copy", "notes.csv, line 1: lacks the columns"),
        ("notes.csv", "\x00\x01", "notes.csv"),
        ("items.csv", None, "items.csv, line 1: lacks the columns ['rater', 'rating']"),
        ("r.csv", "note," + HEADER, "r.csv, line 1: has further columns: ['note']"),
        ("r.csv", f"{HEADER}{LINE},why\n", "r.csv, line 2: has more cells"),
        ("r.csv", f"{HEADER}{LINE}.7.1\n", "r.csv, line 2: the rating '4.7.1' is not a number"),
        ("r.csv", f"{HEADER}{LINE}2\n", "r.csv, line 2: 42.0 is not a number from 0 to 5"),
        ("r.csv", f"{HEADER}{LINE}\n{LINE}\n{LINE}.5", "line 4: this rating was 4 before"),
    ],
)
def test_files_that_are_not_ours_are_left_as_they_are(folder, capsys, name, content, message):
    path = folder / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["rate", str(folder / "items.csv"), "--output", str(path), "--port", "0"]) == 2
    assert message in capsys.readouterr().err
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name: after[name] for name in before} == before


def test_a_table_of_before_goes_on_and_may_lack_its_last_newline(folder):
    path = folder / "ratings.csv"
    path.write_text(HEADER + LINE, encoding="utf-8-sig")
    assert RatingTask(folder / "items.csv", folder, path).next_item("Ann")["done"] == 1
    assert path.read_text(encoding="utf-8") == f"{HEADER}{LINE}\n"
    path.write_text(f"{HEADER}{LINE}.5\n", encoding="utf-8")  # corrected by hand
    with pytest.raises(ValueError, match="line 2: this rating was 4 before.*ratings.sqlite"):
        RatingTask(folder / "items.csv", folder, path)
    assert path.read_text(encoding="utf-8") == f"{HEADER}{LINE}.5\n"
