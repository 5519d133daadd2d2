"""Work on a Ray cluster of two real nodes, of which one is killed."""

import json
import threading
import time
from collections import Counter

import pytest

from speechbrain_clsp import CLSP
from speechbrain_clsp.annotation.records import read_records
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.search.embed import KnownVectors, Settings, describe_run, embed_corpus
from speechbrain_clsp.utils.checks import BadEntriesError
from speechbrain_clsp.utils.cluster import RayCluster
from tests.utils.chat_server import chat_server
from tests.utils.ray_cluster import kill_node_of, two_nodes
from tests.utils.small import model_folder
from tests.utils.stores import buzzes

pytest.importorskip("ray", reason="the extra ray is not installed")
SKIP = Settings(max_bad=0.1, stale_after=5.0)


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a model's folder, its model, a manifest and what a store of it says."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest, model = buzzes(folder, 60, bad=(7,)), model_folder(folder)
    clsp = CLSP.from_pretrained(model)
    return model, clsp, manifest, describe_run(clsp, manifest, shard_rows=3)


@pytest.fixture(scope="module")
def calm(corpus, tmp_path_factory):
    """Return the store of a run that nothing disturbed, without a cluster."""
    _, clsp, manifest, about = corpus
    return embed_corpus(clsp, manifest, tmp_path_factory.mktemp("calm") / "s", about, SKIP)


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_one_at_work(cluster, shards, killed: list[int]) -> None:
    """Kill the node that is at a shard, once three are complete."""
    while len(list(shards.glob("*.json"))) < 3:
        time.sleep(0.005)
    while not killed:
        for lease in shards.glob("*.lease"):
            try:
                process = json.loads(lease.read_text())["process"]
            except (OSError, ValueError):  # it has just ended
                continue
            if kill_node_of(cluster, process):
                killed.append(process)
                return
        time.sleep(0.002)


def test_captions_are_written_in_shards_that_tasks_claim(cluster, tmp_path, capsys):
    buzzes(tmp_path, 24)
    with chat_server(tmp_path) as (url, log):
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps({"caption": {"base_url": url, "model": "test-captioner"}}))
        words = ["annotate", str(config), "--manifest", str(tmp_path / "clips.arrow")]
        words += ["--output", str(tmp_path / "out"), "--stage", "caption"]
        words += ["--ray", cluster.address, "--shards", "3"]
        assert main(words) == 0
        assert main(words) == 0  # nothing is asked twice
        served = Counter(json.loads(line)["digest"] for line in log.read_text().splitlines())
    assert "shard 2 of 3, caption: skipped" in capsys.readouterr().out
    found = [
        record["id"]
        for n in range(3)
        for record in read_records(tmp_path / f"out/caption.{n}-of-3.jsonl")
    ]
    assert sorted(found) == sorted(f"clip{n}" for n in range(24))
    assert len(served) == 24 and set(served.values()) == {1}


def test_what_a_task_raises_is_raised_here(cluster, corpus, tmp_path):
    _, clsp, manifest, about = corpus
    with (
        RayCluster(cluster.address) as found,
        pytest.raises(BadEntriesError, match=r"1 of 3 .* shard 2 .*clip7.*--skip-bad"),
    ):
        embed_corpus(clsp, manifest, tmp_path / "s", about, cluster=found)


def test_audio_that_is_known_is_only_read_in_tasks_too(cluster, corpus, calm, tmp_path):
    _, clsp, manifest, about = corpus
    with RayCluster(cluster.address) as found:
        embed_corpus(clsp, manifest, tmp_path / "s", about, SKIP, KnownVectors([calm]), found)
    assert contents(tmp_path / "s") == contents(calm.folder)


def test_a_node_that_is_killed_costs_nothing_but_time(cluster, corpus, calm, tmp_path):
    """The last test: one node is left."""
    _, clsp, manifest, about = corpus
    killed: list[int] = []
    arguments = (cluster, tmp_path / "s" / "shards", killed)
    killer = threading.Thread(target=kill_one_at_work, args=arguments, daemon=True)
    killer.start()
    with RayCluster(cluster.address) as found:
        store = embed_corpus(clsp, manifest, tmp_path / "s", about, SKIP, cluster=found)
    killer.join(10)
    assert len(killed) == 1 and len(cluster.worker_nodes) == 1
    assert len(store) == 59
    assert contents(tmp_path / "s") == contents(calm.folder)
