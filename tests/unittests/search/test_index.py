"""An index of stores: both engines find the same, changes are seen, faults are named."""

import json
import multiprocessing
import os
import shutil
import signal
import sys

import numpy as np
import pytest

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.search import lance
from speechbrain_clsp.search.index import StyleIndex
from tests.utils.stores import corpus_store, random_store, unit_vectors

SIZE = 400
ENGINES = ["exact", "lancedb"]
CONDITIONS = [
    None,
    "gender = 'male'",
    "gender != 'male'",
    "gender IS NULL AND duration BETWEEN 2 AND 3",
    "labels.mood = 'sad' AND NOT array_has(situational_tags, 'loud')",
    "speaker LIKE 's1%' OR gender IN ('female')",
    "gender NOT IN ('it''s', 'male')",
    "id = 'none'",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    corpus_store(folder, "store", 0, SIZE)
    return folder


@pytest.fixture(params=ENGINES)
def index(request, folder, tmp_path):
    if request.param == "lancedb":
        pytest.importorskip("lancedb")
    return StyleIndex.create(tmp_path / "index", folder / "store", engine=request.param)


def ids(table) -> list[str]:
    return table.column("id").to_pylist()


@pytest.fixture(scope="module")
def two(folder, tmp_path_factory):
    """Return an index of each engine."""
    pytest.importorskip("lancedb")
    places = [tmp_path_factory.mktemp(engine) / "index" for engine in ENGINES]
    return [StyleIndex.create(p, folder / "store", engine=e) for p, e in zip(places, ENGINES)]


@pytest.mark.parametrize("where", CONDITIONS)
def test_both_engines_find_the_same(two, where):
    query = unit_vectors(1, 32, seed=9)[0]
    exact, other = (index.search(query, 20, where) for index in two)
    assert ids(exact) == ids(other)
    scores = exact.column("score").to_numpy()
    np.testing.assert_allclose(scores, other.column("score").to_numpy(), atol=1e-6)
    assert exact.schema.names == other.schema.names
    rows = [{**row, "vector": None, "score": None} for row in exact.to_pylist()]
    assert rows == [{**row, "vector": None, "score": None} for row in other.to_pylist()]
    assert len(exact) == (0 if where == "id = 'none'" else 20)


def test_scores_are_cosines_and_rows_those_of_the_manifest(index, folder):
    vectors = unit_vectors(SIZE, 32)
    hit = index.search(vectors[7], 1).to_pylist()[0]
    assert hit["id"] == "c7" and hit["score"] == pytest.approx(1.0, abs=1e-3)
    assert hit["audio"] == str(folder / "7.wav") and hit["labels"] == {"mood": "sad"}
    assert (hit["duration"], hit["speaker"], hit["source"]) == (3.0, "s7", "store")
    half = index.search(0.5 * vectors[7], 1).column("score")[0].as_py()
    assert half == pytest.approx(0.5, abs=1e-3)


def test_changes_are_seen_by_others_that_have_it_open(index, folder, tmp_path):
    reader, query = StyleIndex.open(index.folder), unit_vectors(1, 32, seed=9)[0]
    best = ids(reader.search(query, 3))
    assert index.delete([best[0], "none"]) == 1
    assert ids(reader.search(query, 2)) == best[1:]
    more = corpus_store(tmp_path, "more", SIZE - 10, 30, seed=3)
    assert index.add(more) == 30
    index.optimize()
    assert (
        len(reader) == len(index) == SIZE - 1 + 20 + (best[0] in {f"c{n}" for n in range(390, 400)})
    )
    found = reader.search(unit_vectors(30, 32, seed=3)[0], 1).to_pylist()[0]
    assert (found["id"], found["source"]) == ("c390", "more")


def die_at(number: int, name: str, act) -> None:
    """Be killed at the n-th call of a function of os."""
    count, original = [0], getattr(os, name)

    def call_or_die(*arguments, **options):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, call_or_die)
    act()


@pytest.mark.parametrize("number", [2, 3, 4])
def test_an_index_whose_making_was_killed_is_made_anew(folder, tmp_path, number):
    def make():
        return StyleIndex.create(tmp_path / "index", folder / "store")

    child = multiprocessing.get_context("fork").Process(
        target=die_at, args=(number, "replace", make)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(ValueError, match="half built: give the command that builds it again"):
        StyleIndex.open(tmp_path / "index")
    assert len(make()) == SIZE


def test_an_index_of_lancedb_is_quantized_only_if_large_and_few_rows_are_compared_exactly(
    folder, tmp_path, monkeypatch
):
    pytest.importorskip("lancedb")
    monkeypatch.setattr(lance, "FEW", 300)
    index = StyleIndex.create(tmp_path / "index", folder / "store", engine="lancedb")
    assert "vector_idx" in index.stats()["indices"]
    exact = StyleIndex.create(tmp_path / "exact", folder / "store")
    queries = unit_vectors(20, 32, seed=9)
    for where, least in ((None, 0.9), ("gender = 'male'", 1.0)):
        found = [
            (set(ids(index.search(q, 10, where))), set(ids(exact.search(q, 10, where))))
            for q in queries
        ]
        recall = np.mean([len(one & other) / 10 for one, other in found])
        assert recall >= least


def test_what_is_wrong_gets_one_line(index, folder, tmp_path):
    foreign = random_store(tmp_path / "f", list("ab"), 32, weights_sha256="11")
    texts = random_store(tmp_path / "t", list("ab"), 32, kind="fine")
    nameless = random_store(tmp_path / "n", list("ab"), 32)
    write_manifest(tmp_path / "o.arrow", [{"id": n, "audio": n, "duration": 1.0} for n in "xy"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    query = unit_vectors(1, 32)[0]
    for pattern, act in {
        "is not an index: make one by clsp index": lambda: StyleIndex.open(tmp_path / "none"),
        "is an index already": lambda: StyleIndex.create(index.folder, folder / "store"),
        "holds thesis.txt": lambda: StyleIndex.create(tmp_path / "mine", folder / "store"),
        "o.arrow is a file: an index is a folder": lambda: StyleIndex.create(
            tmp_path / "o.arrow", folder / "store"
        ),
        "engine must be one of": lambda: StyleIndex.create(
            tmp_path / "x", folder / "store", engine="a"
        ),
        "weights_sha256 is '11'": lambda: index.add(foreign, tmp_path / "o.arrow"),
        "kind is 'fine', not 'speech'": lambda: index.add(texts, tmp_path / "o.arrow"),
        "does not say of which manifest": lambda: index.add(nameless),
        "has 'a' where .* has 'x'": lambda: index.add(nameless, tmp_path / "o.arrow"),
        "has 2 clips, .* made of 400": lambda: StyleIndex.create(
            tmp_path / "y", folder / "store", tmp_path / "o.arrow"
        ),
        r"must be \[32\], not \[3\]": lambda: index.search(np.ones(3)),
        "k must be from 1 to 10000, not 0": lambda: index.search(query, 0),
        "no column 'speeker'; did you mean 'speaker'": lambda: index.search(
            query, 1, "speeker = 'a'"
        ),
    }.items():
        with pytest.raises((OSError, ValueError), match=pattern):
            act()
    write_manifest(
        tmp_path / "l.arrow",
        [{"id": n, "audio": n, "duration": 1.0, "labels": {"age": "old"}} for n in "ab"],
    )
    with pytest.raises(ValueError, match=r"labels \['age'\] are not among .*\['mood'\]"):
        index.add(nameless, tmp_path / "l.arrow")
    lease = index.folder / "write.lease"
    lease.write_text(json.dumps({"host": "elsewhere", "process": 1, "token": "x"}))
    with pytest.raises(BlockingIOError, match="is being changed by another process"):
        index.delete(["c1"])
    lease.unlink()
    assert index.delete(["c1"]) == 1


def test_a_store_that_was_changed_is_not_indexed(folder, index, tmp_path):
    store = corpus_store(tmp_path, "more", 0, 300)
    shard = store / "shards" / "00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    for act in (lambda: index.add(store), lambda: StyleIndex.create(tmp_path / "new", store)):
        with pytest.raises(ValueError, match=r"00001.arrow was changed.*: remove it, and give the"):
            act()
    assert len(index) == SIZE and not (tmp_path / "new").exists()


def test_a_manifest_whose_rows_are_in_another_order_is_another_one(folder, tmp_path):
    """Also if the first and the last clip of each shard are where they were."""
    rows = list(Manifest(folder / "store.arrow"))
    rows[20], rows[21] = rows[21], rows[20]
    write_manifest(tmp_path / "other.arrow", rows)
    for given in (tmp_path / "other.arrow", Manifest(tmp_path / "other.arrow")):
        with pytest.raises(ValueError, match="has 'c20' where .*other.arrow has 'c21'"):
            StyleIndex.create(tmp_path / "index", folder / "store", tmp_path / "other.arrow")
        index = StyleIndex.create(tmp_path / f"of {type(given).__name__}", folder / "store")
        with pytest.raises(ValueError, match="it is another manifest"):
            index.add(folder / "store", given)


def test_a_moved_store_of_files_brings_its_manifest_along(tmp_path):
    store = corpus_store(tmp_path, "store", 0, 9)
    os.replace(tmp_path / "store.arrow", store / "clips.arrow")
    assert len(StyleIndex.create(tmp_path / "index", store)) == 9


def test_a_manifest_that_is_gone_is_named_with_the_way_out(tmp_path):
    store = corpus_store(tmp_path, "store", 0, 9)
    (tmp_path / "store.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"store\.arrow, which is not there: give --man"):
        StyleIndex.create(tmp_path / "index", store)


def test_an_index_that_lost_its_folder_is_not_taken_for_an_empty_one(index):
    shutil.rmtree(index.folder / index.info.engine)
    with pytest.raises(FileNotFoundError, match="is missing: make the index anew by clsp index"):
        StyleIndex.open(index.folder)


def test_an_unknown_engine_is_named(index):
    path = index.folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "engine": "faiss"}))
    with pytest.raises(ValueError, match=r"index\.json is damaged, .*: engine 'faiss'"):
        StyleIndex.open(index.folder)


def test_a_zero_vector_finds_what_a_condition_leaves(index):
    """So a clip is looked up by its id."""
    found = index.search(np.zeros(32, np.float32), 5, "id IN ('c7', 'c300')")
    assert sorted(ids(found)) == ["c300", "c7"]
    assert found.column("score").to_pylist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(index, value):
    with pytest.raises(ValueError, match="The vector holds NaN or infinite values"):
        index.search(np.full(32, value, np.float32), 5)


@pytest.mark.parametrize("engine", [*ENGINES, "qdrant"])
@pytest.mark.parametrize("key", ["Age group", "a.b", "Übel", "it's", "select"], ids=range(5))
def test_conditions_may_name_labels_of_any_form(tmp_path, engine, key):
    if engine != "exact":
        pytest.importorskip({"lancedb": "lancedb", "qdrant": "qdrant_client"}[engine])
    rows = [
        {"id": f"c{n}", "audio": "a.wav", "duration": 1.0, "labels": {key: "xyz"[n]} if n else {}}
        for n in range(3)
    ]
    write_manifest(tmp_path / "m.arrow", rows)
    random_store(tmp_path / "store", ["c0", "c1", "c2"], 32, source=str(tmp_path / "m.arrow"))
    index = StyleIndex.create(tmp_path / "index", tmp_path / "store", engine=engine)
    for condition, expected in (("= 'z'", ["c2"]), ("IS NULL", ["c0"]), ("!= 'z'", ["c1"])):
        found = index.search(unit_vectors(1, 32)[0], 5, f'labels."{key}" {condition}')
        assert ids(found) == expected


def test_without_the_package_an_index_of_lancedb_names_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ValueError, match=r"pip install 'speechbrain-clsp\[search\]'"):
        StyleIndex.create(tmp_path / "index", folder / "store", engine="lancedb")
    assert len(StyleIndex.create(tmp_path / "exact", folder / "store")) == SIZE
