"""Data folders of Kaldi."""

import re

import pytest

from speechbrain_clsp.cli.main import main
from tests.utils.data_commands import prepare
from tests.utils.small import tone, write


@pytest.fixture
def data(tmp_path):
    """Two recordings; three utterances of them."""
    for name, seconds in (("a.wav", 2.0), ("b.wav", 1.0)):
        write(tmp_path / name, tone(seconds))
    files = {
        "wav.scp": f"rec1 a.wav\nrec2 {tmp_path}/b.wav\n",
        "segments": "u1 rec1 0.00 0.75\nu2 rec1 0.75 1.9\nu3 rec2 0.1 1\n",
        "utt2spk": "u1 s1\nu2 s1\nu3 s2\n",
        "spk2gender": "s1 m\ns2 f\n",
        "captions": "u1 A man whispers.\nu2 He shouts.\nu2 He is angry.\nu3 A woman.\n",
        "text": "u1 GOOD MORNING\nu2 HELLO\nu3 BYE\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def failing(data, capsys, *flags) -> str:
    assert main(["prepare", str(data), "--output", str(data / "o.arrow"), *flags]) == 2
    return capsys.readouterr().err


def test_utterances_are_parts_with_speakers_and_captions(data):
    rows = prepare(data, ".")
    assert [row["id"] for row in rows] == ["u1", "u2", "u3"]
    assert [(row["start"], row["duration"]) for row in rows] == [
        (0, 0.75),
        (0.75, 1.15),
        (0.1, 0.9),
    ]
    assert [row["speaker"] for row in rows] == ["s1", "s1", "s2"]
    assert [row["gender"] for row in rows] == ["male", "male", "female"]
    assert rows[1]["fine_captions"] == ["He shouts.", "He is angry."]
    assert rows[2]["audio"] == str(data / "b.wav")


def test_without_segments_recordings_are_clips_and_captions_may_have_another_name(data):
    (data / "segments").unlink()
    (data / "captions").unlink()
    (data / "spk2gender").unlink()
    (data / "utt2spk").unlink()
    (data / "text").write_text("rec1 One.\nrec2 Two.\n")
    rows = prepare(data, ".", "--captions", "text")
    assert [(row["id"], row["duration"], row["speaker"]) for row in rows] == [
        ("rec1", 2.0, None),
        ("rec2", 1.0, None),
    ]


def test_without_captions_the_transcript_is_not_taken(data, capsys):
    (data / "captions").unlink()
    error = failing(data, capsys)
    assert "captions: no such file of captions" in error and "--captions" in error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wav.scp", "rec1 sox a.wav -t wav - |\nrec2 b.wav", "segments, line 1: .*is a command"),
        ("wav.scp", "rec1 raw.ark:17\nrec2 b.wav", "segments, line 1: .*is in an archive of Kaldi"),
        ("wav.scp", "rec1\nrec2 b.wav", "wav.scp, line 1: has nothing after 'rec1'"),
        ("wav.scp", "rec2 b.wav", "segments, line 1: the recording 'rec1' is not in wav.scp"),
        ("wav.scp", "rec1 a.wav\nrec1 b.wav\nrec2 b.wav", "line 2: 'rec1' has another entry"),
        ("wav.scp", "rec1 none.wav\nrec2 b.wav", "no file .*none.wav"),
        ("segments", "u1 rec1 0.5\nu3 rec2 0.1 1", "line 1: 'rec1 0.5' is not RECORDING START END"),
        ("segments", "u1 rec1 1 0.5\nu3 rec2 0.1 1", "line 1: the part from 1 to 0.5 is none"),
        ("segments", "u1 rec1 x 1\nu3 rec2 0.1 1", "line 1: the part from x to 1 is none"),
        ("segments", "u1 rec1 0 9\nu3 rec2 0.1 1", "ends at 9.00 s, the file at 2.00 s"),
        ("segments", "u1 rec1 0 1\nu1 rec1 1 2\nu3 rec2 0.1 1", "line 2: has 'u1' again"),
        ("segments", "u1 rec1 0 1\nu2\nu3 rec2 0.1 1", "line 2: has nothing after 'u2'"),
        ("captions", "u1 A.\nu2\nu3 C.", "captions, line 2: has nothing after 'u2'"),
        ("captions", "u1 A.\nu3 B.\n", "line 2: 'u2' has no caption in"),
        ("captions", "u1 A.\nu2 B.\nu3 C.\nu4 D.", "'u4' has a caption, and no audio"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(data, capsys, name, content, message):
    (data / name).write_text(content)
    error = failing(data, capsys)
    assert re.search(message, error), error
    assert error.count("\n") == 1 and not (data / "o.arrow").exists()


@pytest.mark.parametrize("is_cut", [True, False])
def test_bad_lines_take_no_others_along(data, is_cut):
    scp = (data / "wav.scp").read_text()
    (data / "wav.scp").write_text(f"{scp}rec1 b.wav\nrec4\nrec5 sox x |\n")
    if not is_cut:
        (data / "segments").unlink()
        (data / "captions").write_text("rec1 One.\nrec2 Two.\nrec3\nrec4 Four.\nrec5 Five.\n")
    rows = prepare(data, ".", "--skip-bad")
    assert [row["id"] for row in rows] == (["u1", "u2", "u3"] if is_cut else ["rec1", "rec2"])
    assert rows[0]["audio"] == str(data / "a.wav")
    listed = (data / "out.arrow.bad.txt").read_text()
    assert "wav.scp, line 3: 'rec1' has another entry before: 'a.wav'" in listed
    assert "wav.scp, line 4: has nothing after 'rec4'" in listed
    if not is_cut:
        assert "line 3: has nothing after 'rec3'" in listed and "is a command" in listed


def test_the_folder_of_relative_paths_may_be_set(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write(root / "a.wav", tone(2.0))
    (data / "a.wav").unlink()
    assert prepare(data, ".", "--data-root", str(root))[0]["audio"] == str(root / "a.wav")
