"""What processes of their own do to a LanceDB table, for tests that kill them or run several."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa

from speechbrain_clsp.search import lance
from speechbrain_clsp.search.store import vector_column
from tests.utils.stores import unit_vectors

DIM = 32
# LanceDB has threads from its import on: processes must be forked from one that has not seen it.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def rows(first: int, count: int) -> pa.Table:
    """Return rows c<first>, ...: the same for the same numbers."""
    ids = [f"c{n}" for n in range(first, first + count)]
    gender = [("male", "female", None)[n % 3] for n in range(first, first + count)]
    vectors = vector_column(unit_vectors(count, DIM, seed=first))
    return pa.table({"id": ids, "gender": gender, "vector": vectors})


def start(work: Callable, *arguments) -> tuple[multiprocessing.Process, Connection]:
    """Start a process; returns it and what it tells."""
    told, teller = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=work, args=(teller, *arguments), daemon=True)
    process.start()
    teller.close()
    return process, told


def add(tell: Connection, folder: Path, first: int, count: int, size: int) -> None:
    """Add batches, and tell the number of each before and after it."""
    engine = lance.LanceEngine(folder)
    engine.stats()
    for number in range(first, first + count):
        table = rows(number * size, size)
        tell.send(("add", number))
        engine.add(table)
        tell.send(("added", number))


def optimize(tell: Connection, folder: Path, few: int) -> None:
    """Build indices, also of few rows."""
    lance.FEW = few
    engine = lance.LanceEngine(folder)
    engine.stats()
    tell.send("optimize")
    engine.optimize()
    tell.send("optimized")


def change(tell: Connection, folder: Path, count: int, size: int) -> None:
    """Add batches, and optimize after each."""
    lance.FEW = 100
    engine = lance.LanceEngine(folder)
    for number in range(1, count):
        engine.add(rows(number * size, size))
        engine.optimize()
    tell.send("changed")


def read(tell: Connection, folder: Path, most: int) -> None:
    """Search until there are ``most`` rows; tell how many there were each time."""
    lance.FEW = 100
    engine, sizes = lance.LanceEngine(folder), []
    query = unit_vectors(1, DIM, seed=5)
    while not sizes or sizes[-1] < most:
        (found,) = engine.search(query, 9999)
        ids = found.column("id").to_pylist()
        if len(set(ids)) < len(ids):
            tell.send("a row twice")
            return
        scores = found.column("score").to_numpy()
        sizes.append(len(ids) if (np.diff(scores) <= 0).all() else -1)
    tell.send(sizes)
