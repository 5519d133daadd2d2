"""FCaps from its published form, on miniature trees in the corpora's true layouts."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest
from tests.utils.corpora_trees import (
    CONVERSATION,
    EMILIA,
    PLAIN,
    READ,
    SEGMENT,
    cut,
    make_corpora,
    write_cuts,
)
from tests.utils.hub_server import HubServer
from tests.utils.small import tone, write

RECIPE = Path(__file__).parents[2] / "recipes" / "FCaps"
sys.path.insert(0, str(RECIPE))
from fcaps_prepare import prepare_fcaps

BASE = "fcaps-pscbase-train_base.jsonl.gz"


@pytest.fixture
def audio(tmp_path):
    return make_corpora(tmp_path / "download")


def rows_of(path: Path) -> dict[str, dict]:
    return {row["id"]: row for row in Manifest(path)}


def left_out(path: Path) -> dict[str, str]:
    """Return id -> reason of a list of what was left out."""
    with open(path, encoding="utf-8", newline="") as file:
        return {e["id"]: e["reason"] for e in csv.DictReader(file, delimiter="\t", quoting=3)}


def base_cuts() -> list:
    """Records of every corpus with small parts of what can be odd about them."""
    return [
        cut("train_base-ears-p001_emo_awe_freeform", "ears/p001/emo_awe_freeform.wav"),
        cut("train_base-ears-p002_emo_awe_freeform", "p002/emo_awe_freeform.wav", gender=None),
        cut(f"train_base-expresso-{READ}", f"{READ}.wav", accent=None, intrinsic_tags=None),
        cut(f"train_base-expresso-{SEGMENT}", f"{SEGMENT}.wav", 1.5),
        cut("train_base-voxceleb-a", "voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav"),
        cut(
            "train_base-voxceleb-b",
            "download/voxceleb2/dev/aac/id00012/-1Uxsk56VDQ/00001_voicefixer.wav",
            long_captions=[],
            accent="martian",
        ),
        cut("train_base-voxceleb2-id00012-2DLq_Kkc1r8-00001", "x.wav", short_captions=None),
        cut("train_base-ears-absent", "p009/emo_awe_freeform.wav"),
        cut("train_base-voxceleb2-m4a", "voxceleb2/id00012/2DLq_Kkc1r8/00002.wav"),
        cut("train_base-ears-too-long", "p001/emo_awe_freeform.wav", 3.0),
        cut(
            "train_base-ears-mute", "p001/emo_awe_freeform.wav", short_captions=[], long_captions=[]
        ),
        cut("train_base-ears-twice", "p001/emo_awe_freeform.wav"),
        cut("train_base-ears-twice", "p002/emo_awe_freeform.wav"),
        cut("train_base-ears-fast", "p001/emo_awe_freeform.wav", transforms=[{"name": "Speed"}]),
        cut("train_base-ears-mixed", "p001/emo_awe_freeform.wav", type="MixedCut"),
        "{broken",
        cut("train_base-ears-é漢", "p001/emo_awe_freeform.wav", 0.5, start=0.25),
    ]


def test_every_corpus_is_matched_and_every_miss_is_listed(tmp_path, audio, capsys):
    write_cuts(tmp_path / "data" / BASE, base_cuts())
    prepare_fcaps(audio, tmp_path / "out", source=tmp_path, splits=["pscbase"], n_jobs=1)
    rows = rows_of(tmp_path / "out" / "pscbase.arrow")
    found = {name: str(Path(row["audio"]).relative_to(audio)) for name, row in rows.items()}
    names = list(PLAIN)
    assert list(found.values()) == [
        *names[:3],
        f"expresso/audio_48khz/conversational/ex04-ex02/desire/{CONVERSATION}.wav",
        *names[3:],
        names[0],
        names[0],
    ]
    assert {r["source"] for r in rows.values()} == {"ears", "expresso", "voxceleb1", "voxceleb2"}
    assert {r["split"] for r in rows.values()} == {"train"}
    first, second, third, segment, _, martian, *_, twice, part = rows.values()
    assert first["fine_captions"][1] == "Another, naïve “one”." and first["gender"] == "female"
    assert second["gender"] is None and third["accent"] is None and third["intrinsic_tags"] == []
    assert martian["accent"] == "martian" and martian["fine_captions"] == []
    assert first["start"] is None and (part["start"], part["duration"]) == (0.25, 0.5)
    assert (segment["start"], segment["duration"], segment["channel"]) == (1.25, 1.5, 1)
    assert twice["audio"] == first["audio"]
    assert left_out(tmp_path / "out" / "pscbase_left_out.tsv") == {
        "train_base-ears-absent": "no audio in ears",
        "train_base-voxceleb2-m4a": "no audio in voxceleb2",
        "train_base-ears-too-long": "longer than its file",
        "train_base-ears-mute": "no caption",
        "train_base-ears-twice": "id occurs twice",
        "train_base-ears-fast": "audio changed",
        "train_base-ears-mixed": "not a MonoCut",
        "": "malformed line",
    }
    report = json.loads((tmp_path / "out" / "pscbase_report.json").read_text())
    assert report["clips"] == 9 and sum(report["left_out"].values()) == 8
    assert report["captions"] == {"global": 8, "fine": 16}
    assert "convert them to wav" in (tmp_path / "out" / "pscbase_left_out.tsv").read_text()
    assert "1 longer than its file" in capsys.readouterr().out


def test_a_segment_of_a_conversation_is_read_from_its_channel(tmp_path, audio):
    write_cuts(tmp_path / BASE, base_cuts())
    prepare_fcaps(audio, tmp_path / "out", source=tmp_path, splits=["pscbase"], n_jobs=1)
    manifest = Manifest(tmp_path / "out" / "pscbase.arrow")
    clip = CaptionedSpeechDataset(manifest, TwoCaptions())[3]
    whole = next(audio.rglob(f"{CONVERSATION}.wav"))
    expected = read_audio(whole, channel=1)[20000:44000]
    torch.testing.assert_close(clip["wav"][100:-100], expected[100:-100], atol=2e-3, rtol=0)


def test_emilia_is_found_in_its_shards(tmp_path, audio):
    records = [
        cut(EMILIA[0], f"EN/EN_B00000/EN_B00000_S00000/mp3/{EMILIA[0]}.mp3"),
        cut(EMILIA[1], "x.mp3", short_captions=[], long_captions=[], text="A calm voice."),
        cut(f"emilia-{EMILIA[5]}", ""),
        cut("EN_B00113_S00000_W000000", "x.mp3"),
    ]
    write_cuts(tmp_path / "fcaps-emilia.jsonl.gz", records)
    (audio / "Emilia/EN/EN-B000009.tar").write_bytes(b"no tar" * 100)
    prepare_fcaps(audio, tmp_path / "out", source=tmp_path, splits=["emilia"], n_jobs=2)
    rows = rows_of(tmp_path / "out" / "emilia.arrow")
    assert list(rows) == [EMILIA[0], EMILIA[1], f"emilia-{EMILIA[5]}"]
    assert rows[EMILIA[1]]["fine_captions"] == ["A calm voice."]
    assert rows[f"emilia-{EMILIA[5]}"]["audio"].endswith("EN-B000001.tar")
    clips = CaptionedSpeechDataset(Manifest(tmp_path / "out" / "emilia.arrow"), TwoCaptions())
    assert [abs(len(clips[i]["wav"]) - 16000) < 1600 for i in range(3)] == [True] * 3
    assert left_out(tmp_path / "out" / "emilia_left_out.tsv") == {
        "EN_B00113_S00000_W000000": "no audio in emilia"
    }
    damaged = json.loads((tmp_path / "out" / "emilia_report.json").read_text())["damaged_in_shards"]
    assert len(damaged) == 1 and "EN-B000009.tar" in damaged[0]


def test_a_cut_off_file_keeps_what_came_before(tmp_path, audio, monkeypatch):
    monkeypatch.setattr("speechbrain_clsp.prepare.assembly.BLOCK_RECORDS", 100)
    records = [cut(f"train_base-ears-{i}", "p001/emo_awe_freeform.wav") for i in range(4000)]
    path = write_cuts(tmp_path / BASE, records)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    settings = {"source": tmp_path, "splits": ["pscbase"], "check_length": False, "n_jobs": 1}
    with pytest.raises(ValueError, match=rf"{BASE} is cut off .* after line \d+.*download"):
        prepare_fcaps(audio, tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "pscbase.arrow").exists()
    parts = sorted((tmp_path / "out" / ".pscbase_parts").glob("*.arrow"))
    times = {part: part.stat().st_mtime_ns for part in parts[:-1]}
    assert len(times) > 5

    path.write_bytes(whole)
    kept = {}
    from speechbrain_clsp.prepare import assembly

    join = assembly._join

    def remember(output, parts):
        kept.update({part: part.stat().st_mtime_ns for part in parts})
        return join(output, parts)

    monkeypatch.setattr(assembly, "_join", remember)
    prepare_fcaps(audio, tmp_path / "out", **settings)
    assert len(Manifest(tmp_path / "out" / "pscbase.arrow")) == 4000
    assert times.items() <= kept.items()  # not made again
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_second_run_does_nothing_and_other_settings_are_refused(tmp_path, audio):
    write_cuts(tmp_path / "fcaps-test.jsonl.gz", base_cuts())
    prepare = partial(prepare_fcaps, audio, tmp_path / "out", source=tmp_path, splits=["test"])
    prepare(skip_prep=True)
    prepare(dry_run=True, n_jobs=1)
    assert not (tmp_path / "out").exists()
    prepare(n_jobs=1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    prepare(n_jobs=1)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match="test.arrow.*check_length.*Delete it"):
        prepare(n_jobs=1, check_length=False)


def test_other_layouts_are_found_by_folder_and_template(tmp_path, audio):
    write_cuts(tmp_path / "fcaps-test.jsonl.gz", base_cuts())
    (audio / "ears").rename(tmp_path / "elsewhere")
    ours = {"ears": str(tmp_path / "elsewhere")}
    prepare = partial(prepare_fcaps, audio, source=tmp_path, splits=["test"], n_jobs=1)
    prepare(tmp_path / "a", folders=ours)
    assert len(Manifest(tmp_path / "a" / "test.arrow")) == 9
    template = "{corpus}/audio_48khz/read/{speaker}/{stem}.wav"
    path = audio / "expresso/audio_48khz/read/s1"
    path.mkdir()
    (audio / list(PLAIN)[2]).rename(path / f"{READ}.wav")
    prepare(tmp_path / "b", template=template)
    assert list(rows_of(tmp_path / "b" / "test.arrow")) == [f"train_base-expresso-{READ}"]
    with pytest.raises(ValueError, match="template.*color"):
        prepare(tmp_path / "c", template="{color}")


def test_mistakes_are_told_with_the_way_out(tmp_path, audio):
    def prepare(split, audio=audio, source=tmp_path):
        prepare_fcaps(audio, tmp_path / "out", source=source, splits=[split], n_jobs=1)

    with pytest.raises(FileNotFoundError, match="fcaps-dev.jsonl.gz"):
        prepare("valid")
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        prepare("valid", source=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="unknown.*train.*emilia"):
        prepare("train")
    write_cuts(tmp_path / "fcaps-dev.jsonl.gz", ["<html>"] * 200)
    with pytest.raises(FileNotFoundError, match="No audio: none of .*ears"):
        prepare("valid", audio=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="100 lines are malformed, the first: line 1"):
        prepare("valid")
    write_cuts(tmp_path / "fcaps-dev.jsonl.gz", [cut("dev-ears-x", "p009/x.wav")] * 3)
    with pytest.raises(ValueError, match="No record gives a clip.*no audio in ears.*p009/x.wav"):
        prepare("valid")
    assert not list((tmp_path / "out").glob("*.arrow"))


def test_the_published_dev_file_becomes_the_valid_manifest(tmp_path, audio):
    write_cuts(tmp_path / "fcaps-dev.jsonl.gz", base_cuts())
    prepare_fcaps(audio, tmp_path / "out", source=tmp_path, splits=["valid"], n_jobs=1)
    assert set(Manifest(tmp_path / "out" / "valid.arrow").column("split")) == {"valid"}


def test_a_killed_run_goes_on(tmp_path, audio):
    records = [cut(f"{EMILIA[0]}", "x.mp3") | {"id": f"c{i}"} for i in range(60_000)]
    for record in records:
        record["recording"]["id"] = EMILIA[0]
    write_cuts(tmp_path / "fcaps-emilia.jsonl.gz", records)
    command = [sys.executable, RECIPE / "fcaps_prepare.py", audio, tmp_path / "out"]
    command += ["--source", tmp_path, "--splits", "emilia", "--n_jobs", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(list(map(str, command)), **quiet, start_new_session=True)
    parts = tmp_path / "out" / ".emilia_parts"
    deadline = time.time() + 120
    while len(list(parts.glob("*.arrow"))) < 3 and time.time() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "emilia.arrow").exists()
    done = {p.name: p.stat().st_ino for p in parts.glob("*.arrow")}
    assert done
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    manifest = Manifest(tmp_path / "out" / "emilia.arrow")
    assert manifest.column("id") == [f"c{i}" for i in range(60_000)]
    assert "60,000 clips" in again.stdout


def test_captions_come_from_the_hub(tmp_path, audio):
    server = HubServer()
    path = write_cuts(tmp_path / "x.gz", base_cuts())
    server.files["yfyeung/FCaps", f"data/{BASE}"] = path.read_bytes()
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
    environment["HF_HUB_OFFLINE"] = "0"
    command = [sys.executable, RECIPE / "fcaps_prepare.py", audio, tmp_path / "out"]
    command = list(map(str, [*command, "--splits", "pscbase", "--n_jobs", "1"]))
    for start in ("first", "second"):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, (start, done.stderr)
    assert len(Manifest(tmp_path / "out" / "pscbase.arrow")) == 9
    assert server.downloads() == [BASE]
    environment["HF_HOME"] = str(tmp_path / "other")
    server.status = 404
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    server.shutdown()
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_help_ends_with_an_example():
    for script in ("fcaps_prepare.py", "paraspeechcaps_prepare.py"):
        done = subprocess.run(
            [sys.executable, RECIPE / script, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0 and f"example: python {script}" in done.stdout


def test_cuts_as_lhotse_writes_them(tmp_path):
    # All keys that lhotse 1.33 writes, of clips that are parts of one recording.
    (tmp_path / "speech").mkdir()
    write(tmp_path / "speech" / "long.flac", tone(5.0, 48000), 48000)
    records = []
    for number in range(3):
        supervision = {
            "id": f"s{number}",
            "recording_id": "long",
            "start": 0.0,
            "duration": 1.25,
            "channel": 0,
            "text": "hello",
            "language": "English",
            "speaker": "ex01",
            "gender": "female",
            "custom": {
                "short_captions": ["A calm voice."],
                "long_captions": ["A calm, low voice."],
                "pitch": "low-pitched",
                "alignment_score": 0.9,
            },
        }
        recording = {
            "id": "long",
            "sources": [{"type": "file", "channels": [0], "source": "expresso/long.flac"}],
            "sampling_rate": 48000,
            "num_samples": 240000,
            "duration": 5.0,
            "channel_ids": [0],
        }
        records.append(
            {
                "id": f"test-expresso-{number}",
                "start": 1.25 * number,
                "duration": 1.25,
                "channel": 0,
                "supervisions": [supervision],
                "recording": recording,
                "custom": {"dataloading_info": {"rank": 0}},
                "type": "MonoCut",
            }
        )
    write_cuts(tmp_path / "fcaps-test.jsonl.gz", records)
    folders = {"expresso": str(tmp_path / "speech")}
    prepare_fcaps(
        tmp_path, tmp_path / "out", source=tmp_path, splits=["test"], folders=folders, n_jobs=1
    )
    rows = Manifest(tmp_path / "out" / "test.arrow")
    assert len(rows) == 3 and [row["start"] for row in rows] == [0.0, 1.25, 2.5]
    clips = CaptionedSpeechDataset(rows, TwoCaptions())
    assert [abs(len(clips[i]["wav"]) / 16000 - rows[i]["duration"]) < 0.01 for i in range(3)] == [
        True
    ] * 3
