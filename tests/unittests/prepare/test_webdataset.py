"""Shards of WebDataset, read in place."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.prepare.webdataset import expand_pattern
from tests.utils.data_commands import prepare
from tests.utils.small import tone
from tests.utils.videos import write_ffmpeg


def sound(seconds: float, suffix: str = "wav") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(seconds), 16000, format=suffix.upper())
    return content.getvalue()


def write_shard(path, members: dict[str, bytes | str]):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    """Two shards: captions in .json and in .txt."""
    about = {"text_description": "A man.", "speaker": "s1", "wav": "elsewhere/a.flac"}
    write_shard(
        tmp_path / "s-08.tar",
        {
            "en/a.json": json.dumps(about),
            "en/a.flac": sound(1.0, "flac"),
            "en/b.txt": "A woman.\r\n\r\nShe laughs.\n",
            "en/b.wav": sound(1.5),
            "README.md": "about",
        },
    )
    members = {"en/a.wav": sound(0.5), "en/a.json": json.dumps({"caption": ["C1", "C2"]})}
    write_shard(tmp_path / "s-09.tar", members)
    return tmp_path


@pytest.mark.parametrize("source", ["s-{08..09}.tar", "s-*.tar", "s-{08,09}.tar", "."])
def test_clips_are_read_in_place_with_the_captions_beside_them(shards, source, capsys):
    a, b, other = prepare(shards, source)
    assert [row["id"] for row in (a, b, other)] == ["en-a", "en-b", "s-09-en-a"]
    assert a["fine_captions"] == ["A man."] and a["speaker"] == "s1"
    assert b["fine_captions"] == ["A woman.", "She laughs."]
    assert other["global_captions"] == ["C1", "C2"]
    assert [row["duration"] for row in (a, b, other)] == [1.0, 1.5, 0.5]
    assert {row["audio"] for row in (a, b)} == {str(shards / "s-08.tar")}
    for row, seconds in ((a, 1.0), (b, 1.5), (other, 0.5)):
        assert np.allclose(ClipReader()(row), tone(seconds), atol=1e-4)
    assert "'text_description' for caption" in capsys.readouterr().out
    assert not (shards / "out-audio").exists()


def test_a_video_in_a_shard_is_read_by_its_sound(tmp_path):
    path = write_ffmpeg(tmp_path / "v.mp4", tone(2.0)[None], 16000, "aac", "mpeg4")
    write_shard(tmp_path / "a.tar", {"v.mp4": path.read_bytes(), "v.txt": "A man."})
    (row,) = prepare(tmp_path, "a.tar")
    assert row["duration"] == pytest.approx(2.0, abs=1e-3) and row["id"] == "v"
    assert len(ClipReader()(row)) == 32000


WRONG = {
    "no audio": ({"x.txt": "A."}, "member x: has no audio file"),
    "no caption": ({"x.wav": sound(0.2)}, "member x.*is empty: a clip needs a caption"),
    "two sounds": (
        {"x.wav": sound(0.2), "x.flac": sound(0.2, "flac"), "x.txt": "A."},
        r"member x: has several audio files: \['x.wav', 'x.flac'\]",
    ),
    "no object": ({"x.wav": sound(0.2), "x.json": "[1]"}, "member x: its .json is not an object"),
    "no json": (
        {"x.wav": sound(0.2), "x.json": "{broken"},
        "member x: its .json is not JSON: Expecting property name",
    ),
    "transcript": (
        {"x.wav": sound(0.2), "x.json": '{"text": "good morning"}'},
        "member x: has no column 'caption'.*usually what is said",
    ),
    "pointer": (
        {"x.wav": "version https://git-lfs.github.com/spec/v1\n", "x.txt": "A."},
        "git lfs pull",
    ),
    "empty": ({"x.wav": b"", "x.txt": "A."}, "x.wav: empty"),
    "not utf-8": (
        {"x.wav": sound(0.2), "x.txt": b"caf\xe9"},
        "member x.txt, line 1: the byte 0xe9 is not UTF-8",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_costs_its_clip_alone(tmp_path, capsys, kind):
    members, message = WRONG[kind]
    write_shard(tmp_path / "a.tar", {"ok.wav": sound(0.3), "ok.txt": "Good.", **members})
    words = ["prepare", str(tmp_path / "a.tar"), "--output", str(tmp_path / "o.arrow")]
    assert main(words) == 2 and not (tmp_path / "o.arrow").exists()
    assert re.search(rf"a\.tar.*{message}", capsys.readouterr().err)
    assert [row["id"] for row in prepare(tmp_path, "a.tar", "--skip-bad")] == ["ok"]
    printed = capsys.readouterr().out
    assert re.search(rf"a\.tar.*{message}", printed), printed


def test_a_shard_that_is_cut_off_gives_what_is_whole(tmp_path, capsys):
    members = {"a.txt": "A.", "a.wav": sound(0.3), "b.txt": "B.", "b.wav": sound(0.4)}
    path = write_shard(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[: 512 * 24])
    words = ["prepare", str(path), "--output", str(tmp_path / "o.arrow")]
    assert main(words) == 2 and "cut off" in capsys.readouterr().err
    assert [row["id"] for row in prepare(tmp_path, "a.tar", "--skip-bad")] == ["a"]


@pytest.mark.parametrize("source", ["t-{0..3}.tar", "t-*.tar", "t-{3..1}.tar"])
def test_files_that_are_not_there_are_named(tmp_path, source, capsys):
    words = ["prepare", str(tmp_path / source), "--output", str(tmp_path / "o.arrow")]
    assert main(words) == 2
    assert re.search(r"No file or folder .*t-|t-.* stands for no files", capsys.readouterr().err)


def test_a_tar_file_of_something_else_is_told(tmp_path, capsys):
    write_shard(tmp_path / "a.tar", {"a.png": "x"})
    (tmp_path / "b.tar").write_text("no tar file")
    for name, message in (("a.tar", "has no audio files"), ("b.tar", "it is a text file")):
        words = ["prepare", str(tmp_path / name), "--output", str(tmp_path / "o.arrow")]
        assert main(words) == 2 and message in capsys.readouterr().err


def test_a_file_with_brackets_in_its_name_is_that_file(tmp_path):
    (tmp_path / "a[1].tar").touch()
    assert expand_pattern(tmp_path / "a[1].tar") == [tmp_path / "a[1].tar"]


def test_text_of_a_shard_may_be_in_any_encoding_with_a_mark(tmp_path):
    members = {
        "a.wav": sound(0.3),
        "a.txt": "Größe.".encode("utf-16"),
        "b.wav": sound(0.4),
        "b.json": json.dumps({"caption": "Two."}).encode("utf-16"),
    }
    write_shard(tmp_path / "a.tar", members)
    captions = [row["fine_captions"] for row in prepare(tmp_path, "a.tar")]
    assert captions == [["Größe."], ["Two."]]
