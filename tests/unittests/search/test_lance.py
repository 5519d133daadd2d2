"""A LanceDB table while processes that change it are killed, and while others read it."""

import os
import random
import signal
import time
from datetime import timedelta

import numpy as np
import pytest

from speechbrain_clsp.search import lance
from speechbrain_clsp.search.engines import ExactEngine
from speechbrain_clsp.search.filters import parse_condition
from tests.utils.lance_processes import DIM, add, change, optimize, read, rows, start
from tests.utils.stores import unit_vectors

lancedb = pytest.importorskip("lancedb", reason="the extra search is not installed")
QUERY = unit_vectors(1, DIM, seed=5)


def ids(table) -> list[str]:
    return table.column("id").to_pylist()


def exact_hits(folder, count: int, size: int, k: int) -> list[str]:
    engine = ExactEngine(folder)
    for number in range(count):
        engine.add(rows(number * size, size))
    return ids(engine.search(QUERY, k)[0])


def test_a_kill_inside_add_leaves_all_rows_of_a_batch_or_none(tmp_path):
    """What was added before is there; adding the batch again makes it complete."""
    folder, size, draw, inside, first = tmp_path / "l", 3000, random.Random(0), 0, 0
    lance.LanceEngine(folder).add(rows(0, size))
    first = 1
    for _ in range(3):
        process, told = start(add, folder, first, 20, size)
        done = first - 1
        while True:
            what, number = told.recv()
            if what == "added":
                done = number
            elif number >= first + 1:
                break
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while told.poll():
            try:
                what, number = told.recv()
            except EOFError:
                break
            done = number if what == "added" else done
        engine = lance.LanceEngine(folder)
        count = engine.stats()["rows"]
        assert count % size == 0 and (count // size - 1) - done in (0, 1)
        inside += done < number
        engine.add(rows((done + 1) * size, size))  # again, or for the first time
        assert engine.stats()["rows"] == (done + 2) * size
        first = done + 2
    assert inside  # at least one kill came before the end of an add
    engine = lance.LanceEngine(folder)
    engine.optimize()
    assert ids(engine.search(QUERY, 50)[0]) == exact_hits(tmp_path / "e", first, size, 50)


def test_a_kill_inside_the_building_of_indices_leaves_a_table_that_is_searched_and_indexed(
    tmp_path,
):
    folder, size = tmp_path / "l", 30_000
    lance.LanceEngine(folder).add(rows(0, size))
    expected = exact_hits(tmp_path / "e", 1, size, 20)
    inside = 0
    for pause in (0.02, 0.3):
        process, told = start(optimize, folder, 1000)
        assert told.recv() == "optimize"
        time.sleep(pause)
        process.kill()
        process.join()
        try:
            told.recv()
        except EOFError:  # it was not through
            inside += 1
        engine = lance.LanceEngine(folder)
        assert engine.stats()["rows"] == size
        assert ids(engine.search(QUERY, 20)[0])[:5] == expected[:5]
    assert inside
    engine.optimize()
    assert {"vector_idx", "id_idx", "gender_idx"} == {*engine.stats()["indices"]}
    found = ids(engine.search(QUERY, 20)[0])
    assert len({*found} & {*expected}) >= 18


@pytest.mark.parametrize("lost", ["vector_idx", "id_idx", "gender_idx"])
def test_an_index_that_a_kill_left_out_is_built_the_next_time(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(lance, "FEW", 100)
    engine = lance.LanceEngine(tmp_path)
    engine.add(rows(0, 1000))
    engine.optimize()
    indices = engine.stats()["indices"]
    lancedb.connect(str(tmp_path)).open_table(lance.TABLE).drop_index(lost)
    assert engine.stats()["indices"] == [name for name in indices if name != lost]
    engine.optimize()
    assert engine.stats()["indices"] == indices == ["gender_idx", "id_idx", "vector_idx"]


def test_two_readers_see_whole_states_while_one_process_writes(tmp_path):
    folder, count, size = tmp_path / "l", 6, 200
    lance.LanceEngine(folder).add(rows(0, size))
    readers = [start(read, folder, count * size) for _ in range(2)]
    writer, changed = start(change, folder, count, size)
    for process, told in readers:
        assert told.poll(120)
        sizes = told.recv()
        assert {number % size for number in sizes} == {0}, sizes
        assert sizes == sorted(sizes) and sizes[-1] == count * size
        process.join(10)
    assert changed.poll(60) and changed.recv() == "changed"
    writer.join(10)


def test_a_condition_that_no_row_fulfils_finds_none_also_with_indices(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "FEW", 100)
    engine, table = lance.LanceEngine(tmp_path), rows(0, 1000)
    engine.add(table)
    engine.optimize()
    assert "vector_idx" in engine.stats()["indices"]
    for text in ("id = 'none'", "gender = 'male' AND gender = 'female'"):
        (found,) = engine.search(QUERY, 10, parse_condition(text, table.schema))
        assert len(found) == 0 and found.schema.names == [*table.schema.names, "score"]
    assert engine.delete(["none"]) == 0


def test_old_versions_do_not_pile_up(tmp_path, monkeypatch):
    """An update writes a row anew: without cleaning, the folder would grow with each."""
    monkeypatch.setattr(lance, "KEPT", timedelta(milliseconds=1))
    engine = lance.LanceEngine(tmp_path)
    engine.add(rows(0, 2000))
    engine.optimize()
    before = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    for _ in range(5):
        engine.add(rows(0, 2000))
    engine.optimize()
    after = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert after < 1.5 * before and engine.stats()["rows"] == 2000
    scores = engine.search(QUERY, 10)[0].column("score").to_numpy()
    assert (np.diff(scores) <= 0).all()
