"""The exact engine against float64, and what kills, readers and deletions do to it."""

import multiprocessing
import os
import signal

import numpy as np
import pyarrow as pa
import pytest

from speechbrain_clsp.search.engines import ExactEngine
from speechbrain_clsp.search.filters import parse_condition
from speechbrain_clsp.search.store import vector_column, vectors_of
from tests.utils.stores import unit_vectors


def rows(first: int, count: int, seed: int = 0, dim: int = 16) -> pa.Table:
    ids = [f"c{n}" for n in range(first, first + count)]
    gender = [("male", "female", None)[n % 3] for n in range(first, first + count)]
    vectors = vector_column(unit_vectors(count, dim, seed))
    return pa.table({"id": ids, "gender": gender, "vector": vectors})


def oracle(table: pa.Table, query: np.ndarray, k: int) -> list[str]:
    """Return ids by float64, equal scores in the order of rows."""
    vectors = vectors_of(table.column("vector")).astype(np.float64)
    scores = (vectors @ query.astype(np.float64)).round(6)
    order = np.lexsort((np.arange(len(scores)), -scores))[:k]
    return [table.column("id")[int(n)].as_py() for n in order]


def ids(found: pa.Table) -> list[str]:
    return found.column("id").to_pylist()


@pytest.mark.parametrize("k", [1, 10, 9999])
def test_hits_are_those_of_float64_also_of_equal_vectors(tmp_path, k):
    """Every vector is there three times: pages must not depend on how ties fall."""
    table = pa.concat_tables([rows(0, 7000), rows(7000, 7000), rows(14000, 7000)])
    engine = ExactEngine(tmp_path)
    for start in (0, 9000, 15000):
        engine.add(table.slice(start, 9000 if start == 0 else 6000))
    queries = unit_vectors(2, seed=5)
    for query, found in zip(queries, engine.search(queries, k)):
        expected = oracle(table, query, k)
        # Scores of two clips may be equal to six digits; sets are then compared.
        assert len(found) == k and len(set(expected) ^ set(ids(found))) <= 2
        scores = found.column("score").to_numpy()
        assert (np.diff(scores) <= 0).all()
    first = ids(engine.search(queries[:1], k)[0])
    more = ids(engine.search(queries[:1], min(k + 500, 21000))[0])
    assert more[:k] == first


def test_a_condition_leaves_only_what_fulfils_it(tmp_path):
    table = rows(0, 20000)
    engine, query = ExactEngine(tmp_path), unit_vectors(1, seed=5)
    engine.add(table)
    for text, kept in {
        "gender = 'male'": [n % 3 == 0 for n in range(20000)],
        "gender IS NULL": [n % 3 == 2 for n in range(20000)],
        "id IN ('c5', 'c19999')": [n in (5, 19999) for n in range(20000)],
        "id = 'none'": [False] * 20000,
    }.items():
        (found,) = engine.search(query, 10, parse_condition(text, table.schema))
        assert set(ids(found)) == set(oracle(table.filter(pa.array(kept)), query[0], 10)), text


def test_deleted_and_replaced_rows_are_gone_before_and_after_optimize(tmp_path):
    engine, query = ExactEngine(tmp_path), unit_vectors(1, seed=5)
    engine.add(rows(0, 300))
    best = ids(engine.search(query, 5)[0])
    assert engine.delete([*best[:2], "none"]) == 2
    assert ids(engine.search(query, 3)[0]) == best[2:]
    worst = ids(engine.search(query, 298)[0])[-1]
    new = pa.table(
        {"id": [worst, "new"], "gender": ["x", None], "vector": vector_column(query[[0, 0]])}
    )
    engine.add(new)
    for _ in range(2):
        (found,) = engine.search(query, 300)
        assert ids(found)[:3] == [worst, "new", best[2]] and len(found) == 299
        assert found.column("gender")[0].as_py() == "x"
        engine.optimize()
    assert engine.stats()["rows"] == 299
    assert len(list(tmp_path.iterdir())) == 2  # the state and one file
    assert engine.delete(ids(found)) == 299
    engine.optimize()
    assert len(ExactEngine(tmp_path).search(query, 5)[0]) == 0


def die_at(number: int, folder, change) -> None:
    count, replace = [0], os.replace

    def replace_or_die(*names):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = replace_or_die
    change(ExactEngine(folder))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("change", ["add", "optimize"])
def test_a_killed_writer_leaves_the_state_before(tmp_path, number, change):
    engine, query = ExactEngine(tmp_path), unit_vectors(1, seed=5)
    engine.add(rows(0, 100))
    engine.delete(["c1"])
    before = engine.search(query, 200)[0]
    table = rows(50, 100, seed=1)
    act = {"add": lambda each: each.add(table), "optimize": lambda each: each.optimize()}[change]
    child = multiprocessing.get_context("fork").Process(target=die_at, args=(number, tmp_path, act))
    child.start()
    child.join(60)
    if child.exitcode == -signal.SIGKILL:  # optimize replaces two files only
        assert ExactEngine(tmp_path).search(query, 200)[0].equals(before)
    else:
        assert (change, number) == ("optimize", 3)
    again = ExactEngine(tmp_path)
    again.add(table)
    again.optimize()
    assert again.stats()["rows"] == 149
    assert len(list(tmp_path.iterdir())) == 2


def test_readers_see_whole_states_while_one_writes(tmp_path):
    """A reader that was open keeps working through deletions and the removal of files."""
    writer, query = ExactEngine(tmp_path), unit_vectors(1, seed=5)
    writer.add(rows(0, 100))
    readers = [ExactEngine(tmp_path) for _ in range(2)]
    child = multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path,))
    child.start()
    sizes = set()
    while child.is_alive():
        for reader in readers:
            sizes.add(len(reader.search(query, 9999)[0]))
    child.join()
    assert child.exitcode == 0
    assert {size % 50 for size in sizes} == {0}
    assert len(readers[0].search(query, 9999)[0]) == 100 + 10 * 50


def _write(folder) -> None:
    engine = ExactEngine(folder)
    for number in range(10):
        engine.add(rows(100 + 50 * number, 50, seed=number))
        engine.optimize()


def test_a_search_keeps_its_state_while_another_thread_opens_a_newer_one(tmp_path):
    """The threads of a service share an engine; between two steps of a search, others search."""
    engine, writer, query = ExactEngine(tmp_path), ExactEngine(tmp_path), unit_vectors(1, seed=5)
    table = rows(0, 100)
    writer.add(table)
    best = ids(engine.search(query, 9)[0])

    class Meanwhile:
        def mask(self, rows: pa.Table) -> np.ndarray:
            writer.delete(["c0", "c1", "c2"])
            writer.add(table.slice(40))
            writer.optimize()
            engine.search(query, 1)
            return np.ones(len(rows), bool)

    assert ids(engine.search(query, 9, Meanwhile())[0]) == best


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"x": 1}', None], ids=range(6))
def test_a_damaged_state_is_named_with_the_way_out(tmp_path, content):
    ExactEngine(tmp_path).add(rows(0, 9))
    if content is None:
        (tmp_path / "state.json").unlink()
    else:
        (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json"):
        ExactEngine(tmp_path).search(unit_vectors(1, seed=5), 1)


def test_a_damaged_or_lost_file_is_named_with_the_way_out(tmp_path):
    ExactEngine(tmp_path).add(rows(0, 9))
    file = tmp_path / "000001.arrow"
    for content in (file.read_bytes()[:100], b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"000001\.arrow is damaged .*index anew by clsp"):
            ExactEngine(tmp_path).search(unit_vectors(1, seed=5), 1)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"000001\.arrow is missing: make the index anew"):
        ExactEngine(tmp_path).search(unit_vectors(1, seed=5), 1)
