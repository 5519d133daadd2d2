"""Audio in tar files: where it is, what is damaged, and what is read."""

import io
import os
import pickle
import random
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.audio import AudioError, read_audio
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.shards import ClipReader, ShardWriter, scan_shard
from tests.utils.small import CAPTIONS, tone, write


def encoded(samples: np.ndarray, rate: int = 24000, kind: str = "MP3") -> bytes:
    """Return what a file of these samples holds."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def make_tar(path, members: dict[str, bytes], kind=tarfile.USTAR_FORMAT):
    """Write a tar file; returns its path."""
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_lead_to_the_members(tmp_path, kind):
    """If this fails, a clip is decoded from the wrong bytes."""
    long_name = "EN/" + "x" * 60 + "/" + "y" * 60 + "/d.flac"
    names = ["a.mp3", "a.json", "é_ü.MP3", "b/c.wav", long_name, "._a.mp3"]
    contents = {name: f"content of {name}".encode() * (i * 40 + 1) for i, name in enumerate(names)}
    path = make_tar(tmp_path / "a.tar", contents, kind)
    members, problems = scan_shard(path)
    assert problems == []
    assert [m.name for m in members] == ["a.mp3", "é_ü.MP3", "b/c.wav", long_name]
    data = path.read_bytes()
    for member in members:
        assert data[member.offset : member.offset + member.nbytes] == contents[member.name]


def test_a_damaged_shard_gives_what_is_whole(tmp_path):
    """If this fails, one bad sector hides thousands of clips, or bad ones are trained on."""
    contents = {f"{i}.mp3": bytes([65 + i]) * (900 + 300 * i) for i in range(6)} | {"6.mp3": b""}
    whole = make_tar(tmp_path / "a.tar", contents)
    data, members = whole.read_bytes(), scan_shard(whole).members
    assert [m.name for m in members] == [f"{i}.mp3" for i in range(6)]
    assert scan_shard(whole).problems == ["6.mp3: empty"]

    header = members[2].offset - 512
    (tmp_path / "b.tar").write_bytes(data[:header] + b"\xff" * 200 + data[header + 200 :])
    found = scan_shard(tmp_path / "b.tar")
    assert [m.name for m in found.members] == ["0.mp3", "1.mp3", "3.mp3", "4.mp3", "5.mp3"]
    assert f"byte {header}" in found.problems[0] and "header" in found.problems[0]

    (tmp_path / "c.tar").write_bytes(data[: members[4].offset + 700])
    found = scan_shard(tmp_path / "c.tar")
    assert [m.name for m in found.members] == ["0.mp3", "1.mp3", "2.mp3", "3.mp3"]
    assert "4.mp3: cut off" in found.problems[0]

    (tmp_path / "d.tar").write_bytes(data[: members[4].offset - 512])
    assert "no end mark" in scan_shard(tmp_path / "d.tar").problems[0]
    assert len(scan_shard(tmp_path / "d.tar").members) == 4


def test_what_is_no_tar_is_said_to_be(tmp_path):
    """If this fails, compressed or broken downloads look like empty shards."""
    import gzip

    whole = make_tar(tmp_path / "a.tar", {"a.mp3": random.Random(0).randbytes(2000)})
    (tmp_path / "b.tar").write_bytes(gzip.compress(whole.read_bytes()))
    (tmp_path / "c.tar").write_bytes(b"<html>not found</html>" * 100)
    (tmp_path / "d.tar").write_bytes(b"")
    assert "gunzip" in scan_shard(tmp_path / "b.tar").problems[0]
    assert "a web page" in scan_shard(tmp_path / "c.tar").problems[0]
    for name in ("c.tar", "d.tar"):
        members, problems = scan_shard(tmp_path / name)
        assert members == [] and len(problems) >= 1


@pytest.mark.parametrize(
    "kind, rate", [("MP3", 24000), ("FLAC", 48000), ("WAV", 8000), ("OGG", 16000)]
)
def test_a_clip_in_a_shard_is_the_clip_in_a_file(tmp_path, kind, rate):
    """If this fails, training from shards hears something else than training from files."""
    data = encoded(tone(1.5, rate), rate, kind)
    (tmp_path / f"a.{kind.lower()}").write_bytes(data)
    path = make_tar(tmp_path / "a.tar", {"z.json": b"{}", f"a.{kind.lower()}": data})
    (member,) = scan_shard(path).members
    row = {"id": "a", "audio": str(path), "offset": member.offset, "nbytes": member.nbytes}
    reader = ClipReader()
    torch.testing.assert_close(reader(row), read_audio(tmp_path / f"a.{kind.lower()}"))
    part = reader({**row, "start": 0.5, "duration": 0.75})
    plain = reader({"audio": str(tmp_path / f"a.{kind.lower()}"), "start": 0.5, "duration": 0.75})
    assert part.shape == plain.shape == (12000,)
    torch.testing.assert_close(part, plain)


@settings(max_examples=30, deadline=None)
@given(start=st.floats(0, 1.5), duration=st.floats(0.1, 1.4), rate=st.sampled_from([8000, 22050]))
def test_a_part_is_that_part(tmp_path_factory, start, duration, rate):
    """If this fails, a cut inside a recording is heard shifted, or the whole recording is."""
    path = tmp_path_factory.mktemp("a") / "a.wav"
    ramp = np.linspace(-0.9, 0.9, 3 * rate, dtype=np.float32)
    write(path, np.stack([ramp, -ramp], axis=1), rate, subtype="FLOAT")
    wav = read_audio(path, start=start, duration=duration, channel=0)
    assert abs(len(wav) - duration * 16000) <= 3
    middle = -0.9 + 1.8 * (start + duration / 2) / 3
    assert abs(wav[len(wav) // 2] - middle) < 0.01
    assert read_audio(path, start=start, duration=duration).abs().max() < 0.01


def test_windows_of_a_clip_join_to_the_clip(tmp_path):
    """Of a file, of a member of a shard, and of a part: 16 kHz, so that no filter has borders."""
    path = write(tmp_path / "long.wav", tone(3.3), 16000)
    (tmp_path / "shard").write_bytes(b"?" * 100 + path.read_bytes())
    file = {"id": "a", "audio": str(path)}
    member = {**file, "audio": str(tmp_path / "shard"), "offset": 100}
    member["nbytes"] = path.stat().st_size
    part = {**file, "start": 0.5, "duration": 2.5}
    reader = ClipReader()
    for row, n_windows in ((file, 4), (member, 4), (part, 3), ({**part, "duration": 0.7}, 1)):
        windows = list(reader.read_windows(row, 1.0))
        assert len(windows) == n_windows and max(map(len, windows)) <= 16000
        assert torch.equal(torch.cat(windows), reader(row))


def test_a_part_that_is_not_there_is_refused(tmp_path):
    """If this fails, a clip is shorter than its manifest says, and nobody knows."""
    path = write(tmp_path / "a.wav", tone(1.0))
    assert len(read_audio(path, start=0.5, duration=0.55)) == 8000  # codecs pad and cut
    for part in ({"start": 0.5, "duration": 1.0}, {"start": 3.0}, {"channel": 1}):
        with pytest.raises(AudioError, match="a.wav"):
            read_audio(path, **part)


def test_a_shard_that_changed_is_named(tmp_path):
    """If this fails, a shard that was replaced ends in noise or a riddle."""
    path = make_tar(tmp_path / "a.tar", {"a.mp3": encoded(tone(1.0, 24000))})
    (member,) = scan_shard(path).members
    row = {"id": "a", "audio": str(path), "offset": member.offset, "nbytes": member.nbytes}
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(AudioError, match="a.tar.*prepare the data again"):
        ClipReader()(row)
    path.write_bytes(b"\0" * 20000)
    with pytest.raises(AudioError, match="a.tar, byte 512"):
        ClipReader()(row)
    with pytest.raises(FileNotFoundError, match="b.tar"):
        ClipReader()({**row, "audio": str(tmp_path / "b.tar")})


def test_many_shards_do_not_exhaust_files(tmp_path):
    """If this fails, a worker dies after a thousand shards with too many open files."""
    data = encoded(tone(0.2, 24000))
    reader, rows = ClipReader(max_open=3), []
    for i in range(10):
        path = make_tar(tmp_path / f"{i}.tar", {"a.mp3": data})
        rows.append({"id": str(i), "audio": str(path), "offset": 512, "nbytes": len(data)})
    clips = [reader(row) for row in rows + rows[::-1]]
    assert all(torch.equal(clip, clips[0]) for clip in clips)
    assert len(reader._open) == 3
    assert torch.equal(pickle.loads(pickle.dumps(reader))(rows[0]), clips[0])


def loaded(manifest, **options) -> dict:
    """Read a data set by a DataLoader; returns id -> samples."""
    dataset = CaptionedSpeechDataset(manifest, TwoCaptions(), skip_unreadable=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, **options)
    return {clip.get("id", clip.get("unreadable")): clip.get("wav") for clip in loader}


def test_workers_read_shards_through_the_manifest(tmp_path):
    """If this fails, training on shards with workers, forked or spawned, does not work."""
    contents = {f"{i}.mp3": encoded(tone(0.3, 24000, 100 + 50 * i)) for i in range(3)}
    contents["3.mp3"] = b"no audio" * 50
    path = make_tar(tmp_path / "s.tar", contents)
    rows = [
        {
            "id": m.name,
            "audio": "s.tar",
            "offset": m.offset,
            "nbytes": m.nbytes,
            "duration": 0.3,
            "fine_captions": CAPTIONS[:1],
        }
        for m in scan_shard(path).members
    ]
    write_manifest(tmp_path / "a.arrow", rows)
    manifest = Manifest(tmp_path / "a.arrow")
    alone = loaded(manifest)
    assert [name for name in alone if name.endswith("mp3")] == ["0.mp3", "1.mp3", "2.mp3"]
    (bad,) = [name for name in alone if not name.endswith("mp3")]
    assert bad.startswith("3.mp3: ") and "s.tar" in bad
    for context in ("fork", "spawn"):
        found = loaded(manifest, num_workers=2, multiprocessing_context=context)
        assert list(found) == list(alone)
        assert all(torch.equal(found[name], alone[name]) for name in list(alone)[:3])
    assert len(pickle.dumps(manifest)) < 1000


def test_a_writer_begins_further_shards_and_stores_equal_sounds_once(tmp_path):
    with ShardWriter(tmp_path / "audio", max_bytes=3000) as writer:
        places = [writer.add(bytes([n % 5]) * (1000 + n % 5), ".wav") for n in range(10)]
        names = writer.commit()
    assert len(set(places)) == 5 and len(names) == len(list((tmp_path / "audio").iterdir())) > 1
    for n, place in enumerate(places):
        row = place._asdict() | {"audio": names[place.audio]}
        assert ClipReader().read_bytes(row) == bytes([n % 5]) * (1000 + n % 5)
    for path in names.values():
        members, problems = scan_shard(path)
        assert members and not problems
        with tarfile.open(path) as tar:
            assert [info.offset_data for info in tar] == [member.offset for member in members]


def test_what_a_writer_did_not_commit_is_not_there(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "audio") as writer:
        writer.add(b"sound")
        raise RuntimeError
    assert not (tmp_path / "audio").exists()
    with ShardWriter(tmp_path / "audio") as writer:
        writer.add(b"sound")
    assert not (tmp_path / "audio").exists()


def test_two_writers_in_one_folder_keep_what_each_was_given(tmp_path, monkeypatch):
    with ShardWriter(tmp_path) as one:
        mine = one.add(b"first")
        # Another process: its temporary files have other names.
        monkeypatch.setattr("os.getpid", lambda: 1)
        with ShardWriter(tmp_path) as other:
            theirs = other.add(b"second")
            one.flush()
            replaced, replace = [], os.replace

            def interleaved(old, new):
                replace(old, new)
                replaced.append(new)
                if len(replaced) == 1:
                    replaced.append(other.commit())

            monkeypatch.setattr("os.replace", interleaved)
            names = one.commit()
    read = ClipReader().read_bytes
    assert read({**mine._asdict(), "audio": names[mine.audio]}) == b"first"
    assert read({**theirs._asdict(), "audio": replaced[-1][theirs.audio]}) == b"second"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".tar", ".tar"]
