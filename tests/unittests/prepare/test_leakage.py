"""Test clips that occur in the training data."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.shards import scan_shard
from speechbrain_clsp.prepare.leakage import check_leakage, triples
from tests.unittests.dataio.test_shards import encoded, make_tar
from tests.utils.small import tone, write


def clip(folder, name: str, frequency: float = 200.0, seconds: float = 1.0, **changes) -> dict:
    """Return a row, and write its sound."""
    changes = {"kind": "wav", "caption": f"Speech of the one called {name}, calm.", **changes}
    path = write(folder / f"{name}.{changes.pop('kind')}", tone(seconds, 16000, frequency))
    row = {"id": name, "audio": path.name, "duration": seconds, "speaker": f"speaker {name}"}
    return {**row, "fine_captions": [changes.pop("caption")], **changes}


CAPTION = "A woman in her forties speaks at a measured pace, with a bright voice and a smile in it."


def test_each_planted_leak_is_found(tmp_path, capsys):
    train = [
        clip(tmp_path, "a", 110),
        clip(tmp_path, "b", 120),
        clip(tmp_path, "c", 130, caption=CAPTION),
        clip(tmp_path, "d", 140),
    ]
    near = CAPTION.replace("bright", "clear").upper()
    test = [
        clip(tmp_path, "e", 210, speaker="speaker a"),
        clip(tmp_path, "f", 120, kind="flac"),  # b in another format
        clip(tmp_path, "g", 230, caption=near),
        clip(tmp_path, "h", 140.5),  # as long as d, nearly its pitch
        {**clip(tmp_path, "i", 250), "id": "d"},
    ]
    write_manifest(tmp_path / "train.arrow", train)
    write_manifest(tmp_path / "test.arrow", test)
    paths = [str(tmp_path / "train.arrow"), str(tmp_path / "test.arrow")]
    assert main(["check-leakage", *paths, "--report", str(tmp_path / "r.json")]) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"] == {"id": 1, "speaker": 1, "audio": 1, "caption": 1}
    found = report["leaks"]
    assert {(leak["kind"], leak["test"], leak["train"]) for leak in found} == {
        ("id", "d", "d"),
        ("speaker", "e", "a"),
        ("audio", "f", "b"),
        ("caption", "g", "c"),
    }
    assert "speaker: 1 leaks among 5 test clips" in capsys.readouterr().out
    write_manifest(tmp_path / "clean.arrow", [test[3]])
    assert main(["check-leakage", paths[0], str(tmp_path / "clean.arrow")]) == 0
    assert main(["check-leakage", *paths, "--kinds", "id"]) == 1
    with pytest.raises(ValueError, match="unknown.*color"):
        check_leakage(Manifest(paths[1]), Manifest(paths[0]), ["color"])


def test_sound_is_compared_across_shards_and_parts(tmp_path):
    sound = tone(1.0, 16000, 170)
    make_tar(tmp_path / "s.tar", {"x.flac": encoded(sound, 16000, "FLAC")})
    (member,) = scan_shard(tmp_path / "s.tar").members
    inside = {"audio": "s.tar", "offset": member.offset, "nbytes": member.nbytes, "duration": 1.0}
    write_manifest(tmp_path / "train.arrow", [{"id": "x", **inside}])
    samples = [*tone(0.5, 16000, 90), *sound, *tone(0.5, 16000, 90)]
    soundfile.write(tmp_path / "long.wav", samples, 16000)
    part = {"id": "y", "audio": "long.wav", "start": 0.5, "duration": 1.0}
    write_manifest(tmp_path / "test.arrow", [part, {**part, "id": "z", "audio": "absent.wav"}])
    report = check_leakage(
        Manifest(tmp_path / "test.arrow"), Manifest(tmp_path / "train.arrow"), ["audio"]
    )
    assert [(leak.test, leak.train) for leak in report.leaks] == [("y", "x")]
    assert report.counts == {"audio": 1}


def test_short_captions_are_compared_too():
    assert triples("Calm.") == {("calm",)} and triples("") == frozenset()
    assert triples("a b") != triples("a c")


def manifests(folder, test: list[dict], train: list[dict]) -> tuple[Manifest, Manifest]:
    """Write both manifests; returns them in the order of ``check_leakage``."""
    write_manifest(folder / "test.arrow", test)
    write_manifest(folder / "train.arrow", train)
    return Manifest(folder / "test.arrow"), Manifest(folder / "train.arrow")


def test_parts_of_one_recording_are_not_copies(tmp_path):
    generator = np.random.default_rng(0)
    talk = tone(3.0) * np.repeat(generator.uniform(0.2, 1.0, 60), 800).astype(np.float32)
    write(tmp_path / "talk.wav", talk)
    part = {"audio": "talk.wav", "duration": 1.0}
    later = [part | {"id": "b", "start": 2.0}, part | {"id": "c", "start": 0.0}]
    pair = manifests(tmp_path, later, [part | {"id": "a", "start": 0.0}])
    assert [leak.test for leak in check_leakage(*pair, ["audio"]).leaks] == ["c"]


def test_equal_files_are_found_whatever_duration_a_manifest_states(tmp_path):
    row = clip(tmp_path, "a", 150, seconds=2.0)
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    pair = manifests(tmp_path, [row], [{**row, "id": "b", "audio": "b.wav", "duration": 2.05}])
    assert [leak.train for leak in check_leakage(*pair, ["audio"]).leaks] == ["b"]


def test_sounds_that_differ_only_after_their_first_second_are_not_copies(tmp_path):
    start = tone(1.5, 16000, 150)
    write(tmp_path / "a.flac", np.concatenate([start, tone(1.0, 16000, 100)]))
    write(tmp_path / "b.flac", np.concatenate([start, 0.3 * tone(1.0, 16000, 100)]))
    rows = [{"id": name, "audio": f"{name}.flac", "duration": 2.5} for name in "ab"]
    assert not check_leakage(*manifests(tmp_path, rows[:1], rows[1:]), ["audio"])
    assert check_leakage(*manifests(tmp_path, rows[:1], rows[:1]), ["audio"]).counts["audio"] == 1


@pytest.mark.parametrize("n_words", [1, 2, 3, 9, 30])
def test_equal_captions_are_found_whatever_their_length(tmp_path, n_words):
    text = " ".join(f"word{n}" for n in range(n_words))
    row = {"id": "a", "audio": "a.wav", "duration": 1.0, "global_captions": [text]}
    train = {**row, "id": "b", "global_captions": ["Another."], "fine_captions": [f"{text}."]}
    pair = manifests(tmp_path, [row], [train])
    assert check_leakage(*pair, ["caption"]).counts == {"caption": 1}


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_near_captions_are_those_of_a_pairwise_comparison(tmp_path, captions):
    rows = [
        {"id": str(n), "audio": "a.wav", "duration": 1.0, "fine_captions": [" ".join(words)]}
        for n, words in enumerate(captions)
    ]
    test, train = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    found = check_leakage(*manifests(tmp_path, test, train), ["caption"])
    expected = set()
    for one in test:
        for other in train:
            a, b = triples(one["fine_captions"][0]), triples(other["fine_captions"][0])
            if a and b and len(a & b) >= 0.7 * len(a | b):
                expected.add((one["id"], other["id"]))
    assert {(leak.test, leak.train) for leak in found.leaks} == expected


def test_the_list_of_leaks_is_limited_but_not_their_count(tmp_path, monkeypatch):
    monkeypatch.setattr("speechbrain_clsp.prepare.leakage.MAX_LISTED", 10)
    row = {"audio": "a.wav", "duration": 1.0, "fine_captions": ["A man whispers."]}
    test = [{**row, "id": f"test{n}"} for n in range(5)]
    train = [{**row, "id": f"train{n}"} for n in range(7)]
    report = check_leakage(*manifests(tmp_path, test, train), ["caption"])
    assert report.counts == {"caption": 5} and len(report.leaks) == 10


def test_warnings_tell_copies_from_what_may_be_shared_on_purpose(tmp_path):
    row = {"id": "a", "audio": "a.wav", "duration": 1.0, "speaker": "s"}
    report = check_leakage(*manifests(tmp_path, [row], [row]), ["id", "speaker"])
    copied, shared = report.warnings()
    assert copied == "LEAK: 1 test clips have the id of a training clip, such as a (a)"
    assert shared.startswith("SHARED, is it intended?: 1 test clips have the speaker")
    clean = check_leakage(*manifests(tmp_path, [row], [{**row, "id": "b"}]), ["id"])
    assert not clean and clean.warnings() == [] and clean.counts == {"id": 0}


def test_a_report_does_not_replace_another_file(tmp_path, capsys):
    write_manifest(tmp_path / "a.arrow", [{"id": "a", "audio": "a.wav", "duration": 1.0}])
    command = ["check-leakage", *[str(tmp_path / "a.arrow")] * 2, "--kinds", "id"]
    command += ["--report", str(tmp_path / "r.json")]
    assert main(command) == main(command) == 1
    for content in ("[1]", '{"my": "notes"}', "my only copy"):
        (tmp_path / "r.json").write_text(content)
        assert main(command) == 2
        assert "is not a report of leaks" in capsys.readouterr().err
        assert (tmp_path / "r.json").read_text() == content
