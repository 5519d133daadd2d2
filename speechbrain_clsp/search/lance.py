"""The engine for more than a million clips: a LanceDB table on disk, quantized and partitioned.

Candidates come from the quantized vectors; their scores are computed from the float16 ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from speechbrain_clsp.search.filters import Condition
from speechbrain_clsp.search.store import vectors_of

TABLE = "clips"
FEW = 20_000  # rows: so many, or fewer after a condition, are compared exactly
BITS = 2  # of a value of a quantized vector
PARTITION_ROWS = 8192
# Of a corpus of so many rows all partitions are searched, of a larger one the nearest.
SEARCHED_ROWS = 2_000_000
REFINE = 20  # candidates per hit whose exact score is computed
MOST_CANDIDATES = 50_000
INDEX_CACHE, METADATA_CACHE = 512 * 2**20, 64 * 2**20  # bytes
KEPT = timedelta(minutes=10)  # old versions: searches that have begun read them
COLUMNS = ("gender", "accent", "pitch", "speaking_rate", "split", "source", "speaker")


class LanceEngine:
    """A LanceDB table; changes are versions of it, so that readers see all of one or nothing.

    Arguments
    ---------
    folder : pathlib.Path
        Where the table is.

    Raises
    ------
    ValueError
        If ``lancedb`` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import lancedb
        except ImportError as error:
            raise ValueError(
                "This index needs the package lancedb: pip install 'speechbrain-clsp[search]'"
            ) from error
        session = lancedb.Session(INDEX_CACHE, METADATA_CACHE)
        self._base = lancedb.connect(str(folder), session=session)
        self._table: Any = None

    def _open(self) -> Any:
        """Return the table in its newest version; None if nothing was added yet."""
        if self._table is None and TABLE in self._base.list_tables().tables:
            self._table = self._base.open_table(TABLE)
        elif self._table is not None:
            self._table.checkout_latest()
        return self._table

    def add(self, rows: pa.Table | pa.RecordBatchReader, new: bool = False) -> None:
        """Add rows; those whose id is there are replaced."""
        there = self._open()
        if there is None:
            self._table = self._base.create_table(TABLE, rows)
        elif new:
            there.add(rows)
        else:
            merge = there.merge_insert("id")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were."""
        there = self._open()
        if there is None or not ids:
            return 0
        before = there.count_rows()
        there.delete(Condition("in", "id", tuple(ids)).to_sql())
        return int(before - there.count_rows())

    def search(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[pa.Table]:
        """Search partitions, or exactly where few rows are to be compared."""
        there = self._open()
        sql = None if where is None else where.to_sql()
        exact = "vector" not in self._indexed(there) or there.count_rows(sql) <= FEW
        return [self._nearest(there, vector, k, sql, exact) for vector in vectors]

    def _nearest(
        self, there: Any, vector: np.ndarray, k: int, sql: str | None, exact: bool
    ) -> pa.Table:
        # No clip has a cosine with the zero vector, for which all are equally near: take any other.
        direction = vector if vector.any() else np.ones_like(vector)
        direction = direction / np.linalg.norm(direction)
        query = there.search(direction, vector_column_name="vector").distance_type("cosine")
        if exact:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(SEARCHED_ROWS // PARTITION_ROWS)
            query = query.refine_factor(max(1, min(REFINE, MOST_CANDIDATES // k)))
        if sql is not None:
            query = query.where(sql, prefilter=True)
        found = query.limit(k).to_arrow().drop_columns("_distance")
        scores = vectors_of(found.column("vector")).astype(np.float32) @ vector
        order = np.lexsort((np.arange(len(scores)), -scores))
        found = found.append_column("score", pa.array(scores, pa.float32()))
        return found.take(pa.array(order))

    def optimize(self) -> None:
        """Index what is new; with enough rows, also the columns that conditions usually name."""
        there = self._open()
        if there is None:
            return
        # Before indices are built: of a million rows it took minutes afterwards, for nothing.
        there.optimize(cleanup_older_than=KEPT)
        rows = there.count_rows()
        if rows <= FEW:
            return
        built = self._indexed(there)
        for column, kind in self._wanted_indices(there.schema, rows).items():
            if column not in built:  # a kill may have left some of them
                there.create_index(column, config=kind)

    @staticmethod
    def _wanted_indices(schema: pa.Schema, rows: int) -> dict[str, Any]:
        """Return the kind of index that each column of a table of so many rows should have."""
        from lancedb.index import Bitmap, BTree, IvfRq, LabelList

        parts = max(1, round(rows / PARTITION_ROWS))
        vectors = IvfRq(distance_type="cosine", num_bits=BITS, num_partitions=parts)
        wanted: dict[str, Any] = {"vector": vectors, "id": BTree()}
        for field in schema:
            if kinds.is_list(field.type) and field.name.endswith("_tags"):
                wanted[field.name] = LabelList()
            elif field.name in COLUMNS:
                wanted[field.name] = BTree() if field.name == "speaker" else Bitmap()
        return wanted

    def stats(self) -> dict[str, Any]:
        """Return rows, versions and indices."""
        there = self._open()
        if there is None:
            return {"rows": 0, "versions": 0, "indices": []}
        indices = sorted(index.name for index in there.list_indices())
        return {
            "rows": there.count_rows(),
            "versions": len(there.list_versions()),
            "indices": indices,
        }

    @staticmethod
    def _indexed(there: Any) -> set[str]:
        return {column for index in there.list_indices() for column in index.columns}
