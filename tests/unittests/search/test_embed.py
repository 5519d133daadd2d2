"""Embedding a corpus: the right vectors, whatever kills the processes that do it."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.search import embed
from speechbrain_clsp.search.embed import KnownVectors, Settings, describe_run, embed_corpus
from speechbrain_clsp.search.store import EmbeddingStore
from speechbrain_clsp.utils.checks import BadEntriesError
from tests.utils.small import CAPTIONS, model_folder, tone, write
from tests.utils.stores import buzzes, random_store

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_pretrained(model_folder(tmp_path_factory.mktemp("m")))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return buzzes(tmp_path_factory.mktemp("clips"), 22, bad=(7,))


@pytest.fixture(scope="module")
def about(clsp, manifest):
    return describe_run(clsp, manifest, shard_rows=4)


SKIP = Settings(max_bad=0.1, stale_after=5.0)


@pytest.fixture(scope="module")
def calm(clsp, manifest, about, tmp_path_factory):
    """Return the store of a run that nothing disturbed."""
    return embed_corpus(clsp, manifest, tmp_path_factory.mktemp("calm") / "s", about, SKIP)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_vectors_are_those_of_the_clips(clsp, manifest, calm):
    good = [row for row in manifest if row["id"] != "clip7"]
    assert calm.ids() == [row["id"] for row in good]
    expected = clsp.encode_files([row["audio"] for row in good], progress=False)
    np.testing.assert_allclose(calm.vectors(), expected.numpy(), atol=5e-4)
    assert [name for name, _ in calm.bad] == ["clip7"] and "text file" in calm.bad[0][1]
    rows = [row for table in calm.tables() for row in table["row"].to_pylist()]
    assert rows == [n for n in range(22) if n != 7]
    assert sum(mark.seconds for mark in calm.marks) == pytest.approx(
        sum(row["duration"] for row in good)
    )


def die_at(number: int, clsp, manifest, folder, about) -> None:
    """Embed, and be killed when the file of this number is about to get its name."""
    count, replace = [0], os.replace

    def replace_or_die(*names):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = replace_or_die
    embed_corpus(clsp, manifest, folder, about, SKIP)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 13, 14])
def test_a_run_that_was_killed_ends_with_the_same_bytes(
    clsp, manifest, about, calm, tmp_path, number
):
    """1: the store's description; then shards and their marks in turn; 14: the list of marks."""
    child = FORK.Process(target=die_at, args=(number, clsp, manifest, tmp_path / "s", about))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    embed_corpus(clsp, manifest, tmp_path / "s", about, SKIP)
    assert contents(tmp_path / "s") == contents(calm.folder)


def test_three_processes_that_are_killed_at_any_moment_end_with_the_same_bytes(
    clsp, manifest, about, calm, tmp_path
):
    draw, folder = random.Random(0), tmp_path / "s"
    arguments = (clsp, manifest, folder, about, SKIP)
    running, kills, end = [], 0, time.monotonic() + 120
    while not (folder / "complete.json").is_file():
        assert time.monotonic() < end
        running = [child for child in running if child.is_alive()]
        while len(running) < 3:
            running.append(FORK.Process(target=embed_corpus, args=arguments))
            running[-1].start()
        time.sleep(draw.uniform(0.01, 0.3))
        if kills < 8:
            victim = draw.choice(running)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            kills += 1
    for child in running:
        child.join(60)
    assert kills > 0
    embed_corpus(*arguments)  # removes nothing, adds nothing
    assert contents(folder) == contents(calm.folder)


def test_captions_have_vectors_of_their_own(clsp, manifest, tmp_path):
    about = describe_run(clsp, manifest, "fine", shard_rows=5)
    store = embed_corpus(clsp, manifest, tmp_path / "s", about)
    assert store.ids()[:3] == ["clip0#0", "clip0#1", "clip1#0"]
    expected = clsp.encode_text([CAPTIONS[0], CAPTIONS[1], CAPTIONS[1]])
    np.testing.assert_allclose(store.vectors()[:3], expected.numpy(), atol=5e-4)


def test_captions_that_no_clip_has_are_missed_before_a_store_is_begun(clsp, tmp_path):
    write_manifest(tmp_path / "m.arrow", [{"id": "a", "audio": "a.wav", "duration": 1.0}])
    manifest = Manifest(tmp_path / "m.arrow")
    with pytest.raises(ValueError, match=r"m\.arrow has no fine captions to embed"):
        embed_corpus(clsp, manifest, tmp_path / "s", describe_run(clsp, manifest, "fine"))
    assert not (tmp_path / "s").exists()


def test_other_models_manifests_and_settings_are_refused(clsp, manifest, about, calm, tmp_path):
    other = CLSP.from_pretrained(model_folder(tmp_path))
    with torch.no_grad():
        other.speech_tower.head.projection[0].weight[0, 0] += 1
    fewer = buzzes(tmp_path, 3)
    for pattern, different in {
        "weights_sha256": describe_run(other, manifest, shard_rows=4),
        "source_sha256": describe_run(clsp, fewer, shard_rows=4),
        "shard_rows is 5, not 4": describe_run(clsp, manifest, shard_rows=5),
        "precision is 'bf16'": describe_run(clsp, manifest, precision="bf16", shard_rows=4),
    }.items():
        before = contents(calm.folder)
        with pytest.raises(ValueError, match=pattern):
            embed_corpus(clsp, manifest, calm.folder, different, SKIP)
        assert contents(calm.folder) == before


def test_bad_clips_stop_it_unless_they_may_be_left_out_and_many_always_do(
    clsp, manifest, about, tmp_path
):
    with pytest.raises(BadEntriesError, match=r"1 of 4 .* shard 1 .*clip7.*--skip-bad"):
        embed_corpus(clsp, manifest, tmp_path / "s", about)
    (tmp_path / "many").mkdir()
    many = buzzes(tmp_path / "many", 30, bad=tuple(range(0, 24, 2)))
    run = describe_run(clsp, many)
    with pytest.raises(BadEntriesError, match="12 of 30 .* where the manifest says"):
        embed_corpus(clsp, many, tmp_path / "t", run, SKIP)
    assert not list((tmp_path / "t" / "shards").iterdir())
    (tmp_path / "all").mkdir()
    none = buzzes(tmp_path / "all", 2, bad=(0, 1))
    with pytest.raises(BadEntriesError, match="nothing could be embedded: clip0: .*; clip1"):
        embed_corpus(clsp, none, tmp_path / "u", describe_run(clsp, none), SKIP)


def test_known_audio_is_only_read(clsp, manifest, about, calm, tmp_path, monkeypatch):
    """Also in another manifest, under other names."""
    known = KnownVectors([calm])
    known.check(about)
    rows = [{**row, "id": f"again/{row['id']}"} for row in manifest][::-1]
    write_manifest(tmp_path / "again.arrow", rows)
    again = Manifest(tmp_path / "again.arrow")
    embedded = []
    embed = clsp.embed
    monkeypatch.setattr(
        clsp, "embed", lambda wavs, lens: embedded.append(len(wavs)) or embed(wavs, lens)
    )
    run = describe_run(clsp, again, shard_rows=4)
    store = embed_corpus(clsp, again, tmp_path / "s", run, SKIP, known)
    assert embedded == []
    np.testing.assert_array_equal(store.vectors(), calm.vectors()[::-1])
    with pytest.raises(ValueError, match="precision is 'fp32', not 'bf16'"):
        known.check(describe_run(clsp, manifest, precision="bf16"))


def test_long_clips_and_parts_are_embedded_as_files_are(clsp, tmp_path, monkeypatch):
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 1.0)
    long = write(tmp_path / "long.wav", np.concatenate([tone(1.6, frequency=f) for f in (90, 200)]))
    row = {"id": "all", "audio": str(long), "duration": 3.2}
    rows = [row, {**row, "id": "part", "start": 0.5, "duration": 0.6}]
    write_manifest(tmp_path / "m.arrow", rows)
    manifest = Manifest(tmp_path / "m.arrow")
    for workers in (0, 2):
        settings = Settings(num_workers=workers)
        run = describe_run(clsp, manifest)
        store = embed_corpus(clsp, manifest, tmp_path / f"s{workers}", run, settings)
        np.testing.assert_allclose(store.vectors()[0], clsp.encode_file(long).numpy(), atol=5e-4)
        part = write(tmp_path / "part.wav", tone(1.6, frequency=90)[8000:17600])
        np.testing.assert_allclose(store.vectors()[1], clsp.encode_file(part).numpy(), atol=2e-3)


def test_what_is_embedded_together_does_not_depend_on_what_is_known(
    clsp, manifest, about, calm, tmp_path
):
    """Half of the audio is known: the rest gets the bytes of a run that knew nothing."""
    half = [row for n, row in enumerate(manifest) if n in (0, 1, 2, 3, 9, 18)]
    write_manifest(tmp_path / "half.arrow", half)
    run = describe_run(clsp, Manifest(tmp_path / "half.arrow"))
    first = embed_corpus(clsp, Manifest(tmp_path / "half.arrow"), tmp_path / "h", run)
    known = KnownVectors([first])
    assert known.find(b"?" * 32) is None
    store = embed_corpus(clsp, manifest, tmp_path / "s", about, SKIP, known)
    expected = {name: vector for name, vector in zip(calm.ids(), calm.vectors())}
    expected |= {name: vector for name, vector in zip(first.ids(), first.vectors())}
    for name, vector in zip(store.ids(), store.vectors()):
        np.testing.assert_array_equal(vector, expected[name])


def test_a_shard_that_was_removed_is_embedded_again(clsp, manifest, about, calm, tmp_path):
    folder = shutil.copytree(calm.folder, tmp_path / "s")
    (folder / "shards" / "00002.arrow").unlink()
    with pytest.raises(FileNotFoundError, match="00002.arrow is missing: give the command that"):
        EmbeddingStore(folder).ids()
    embed_corpus(clsp, manifest, folder, about, SKIP)
    assert contents(folder) == contents(calm.folder)


def count_reads(monkeypatch) -> Counter:
    """Count from now on how often each clip is read."""
    reads: Counter = Counter()
    read = ClipReader.read_windows

    def read_windows(self, row, longest):
        reads[row["id"]] += 1
        yield from read(self, row, longest)

    monkeypatch.setattr(ClipReader, "read_windows", read_windows)
    return reads


@pytest.mark.parametrize("workers", [0, 2])
def test_no_clip_is_decoded_twice_whether_it_is_known_or_not(
    clsp, manifest, about, tmp_path, monkeypatch, workers
):
    half = [row for n, row in enumerate(manifest) if n in (0, 1, 2, 3, 9, 18)]
    write_manifest(tmp_path / "half.arrow", half)
    part = Manifest(tmp_path / "half.arrow")
    known = KnownVectors([embed_corpus(clsp, part, tmp_path / "h", describe_run(clsp, part))])
    reads = count_reads(monkeypatch)
    settings = Settings(max_bad=0.1, num_workers=workers)
    embed_corpus(clsp, manifest, tmp_path / "s", about, settings, known)
    assert reads == {f"clip{n}": 1 for n in range(22)}


def test_a_clip_of_more_batches_than_are_held_is_read_again_only_if_it_is_unknown(
    clsp, tmp_path, monkeypatch
):
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(embed, "HELD", 2)
    long = write(tmp_path / "long.wav", tone(3.0))
    write_manifest(tmp_path / "m.arrow", [{"id": "a", "audio": str(long), "duration": 3.0}])
    manifest = Manifest(tmp_path / "m.arrow")
    run = describe_run(clsp, manifest, max_batch_seconds=0.6)
    calm = embed_corpus(clsp, manifest, tmp_path / "s", run)
    reads = count_reads(monkeypatch)
    again = embed_corpus(clsp, manifest, tmp_path / "t", run, known=KnownVectors([calm]))
    assert reads == {"a": 1} and contents(again.folder) == contents(calm.folder)
    nothing = random_store(tmp_path / "n", ["x"], run.dim)
    third = embed_corpus(clsp, manifest, tmp_path / "u", run, known=KnownVectors([nothing]))
    assert reads == {"a": 3} and contents(third.folder) == contents(calm.folder)


def test_a_store_says_of_its_model_what_the_model_does(clsp, manifest):
    about, said = describe_run(clsp, manifest, precision="bf16"), clsp.provenance()
    assert os.path.isabs(about.model) and os.path.samefile(about.model, said["model"])
    for name in ("revision", "weights_sha256", "preprocessing", "package"):
        assert getattr(about, name) == said[name]
    assert about.precision == "bf16"
