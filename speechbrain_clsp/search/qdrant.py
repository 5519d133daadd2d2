"""The engine for those who outgrow one machine: a collection on a Qdrant server.

``QDRANT_URL`` and ``QDRANT_API_KEY`` name the server. Without them the client keeps the collection
in the index's folder, for tests: it is slow, and one process at a time can open it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_clsp.search.engines import batches_of
from speechbrain_clsp.search.filters import Condition, quoted
from speechbrain_clsp.search.store import vector_column, vectors_of
from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.reading import read_text

URL, KEY = "QDRANT_URL", "QDRANT_API_KEY"
AT_ONCE = 256  # rows in a request
NAMESPACE = uuid.UUID("3c1f0f0a-4a0b-4c60-9a55-5f6a0c0c51a9")  # of ids, which Qdrant wants as UUIDs
KEYWORDS = ("gender", "accent", "pitch", "speaking_rate", "split", "source", "speaker", "id")
RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
OPPOSITES = {"and": "or", "or": "and"}


class QdrantEngine:
    """A collection of Qdrant.

    Arguments
    ---------
    folder : pathlib.Path
        Holds the collection's name.
    schema : pyarrow.Schema
        Columns of a row.

    Raises
    ------
    ValueError
        If ``qdrant-client`` is not installed.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        try:
            from qdrant_client import QdrantClient, models
        except ImportError as error:
            raise ValueError(
                "This index needs the package qdrant-client: pip install 'speechbrain-clsp[qdrant]'"
            ) from error
        self._schema, self._models = schema, models
        name = folder / "collection.txt"
        if not name.is_file():
            atomic_write(name, f"clsp-{uuid.uuid4().hex}")
        self._name = read_text(name).strip()
        self._url = os.environ.get(URL)
        if self._url:
            self._client = QdrantClient(url=self._url, api_key=os.environ.get(KEY))
        else:
            self._client = QdrantClient(path=str(folder / "local"))

    def add(self, rows: pa.Table | pa.RecordBatchReader, new: bool = False) -> None:
        """Add rows; those whose id is there are replaced."""
        models = self._models
        if not self._client.collection_exists(self._name):
            size = self._schema.field("vector").type.list_size
            # Dot, since vectors are of unit norm and cosine would change them.
            vectors = models.VectorParams(
                size=size,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16,
                on_disk=True,
            )
            self._client.create_collection(self._name, vectors_config=vectors)
        for batch in batches_of(rows, AT_ONCE):
            part = pa.Table.from_batches([batch])
            vectors = vectors_of(part.column("vector")).astype(np.float32).tolist()
            points = [
                models.PointStruct(id=_uuid(row["id"]), vector=vector, payload=row)
                for row, vector in zip(part.drop_columns("vector").to_pylist(), vectors)
            ]
            self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were."""
        if not ids or not self._client.collection_exists(self._name):
            return 0
        numbers: list[Any] = [_uuid(name) for name in ids]
        there = self._client.retrieve(self._name, numbers, with_payload=False)
        selector = self._models.PointIdsList(points=numbers)
        self._client.delete(self._name, points_selector=selector, wait=True)
        return len(there)

    def search(self, vectors: np.ndarray, k: int, where: Condition | None = None) -> list[pa.Table]:
        """Search the collection."""
        chosen = None if where is None else self._filter(where, False)
        return [self._nearest(vector, k, chosen) for vector in vectors]

    def _nearest(self, vector: np.ndarray, k: int, chosen: Any) -> pa.Table:
        found = self._client.query_points(
            self._name,
            query=vector.tolist(),
            query_filter=chosen,
            limit=k,
            with_payload=True,
            with_vectors=True,
        ).points
        size = self._schema.field("vector").type.list_size
        there = np.array([point.vector for point in found], np.float16).reshape(-1, size)
        scores = there.astype(np.float32) @ vector
        order = np.lexsort((np.arange(len(scores)), -scores))
        place = self._schema.get_field_index("vector")
        rows = pa.Table.from_pylist([point.payload for point in found], self._schema.remove(place))
        table = rows.append_column(self._schema.field("vector"), vector_column(there))
        return table.append_column("score", pa.array(scores, pa.float32())).take(pa.array(order))

    def optimize(self) -> None:
        """Index the columns that conditions usually name; the server does the rest itself."""
        if not (self._url and self._client.collection_exists(self._name)):
            return
        labels = [name for name in self._schema.names if name == "labels"]
        keys = [
            _path(f"labels.{each.name}")
            for name in labels
            for each in self._schema.field(name).type
        ]
        for key in (*KEYWORDS, *keys):
            kind = self._models.PayloadSchemaType.KEYWORD
            self._client.create_payload_index(self._name, key, field_schema=kind)
        kind = self._models.PayloadSchemaType.FLOAT
        self._client.create_payload_index(self._name, "duration", field_schema=kind)

    def stats(self) -> dict[str, Any]:
        """Return rows, and where they are."""
        rows = 0
        if self._client.collection_exists(self._name):
            rows = self._client.count(self._name, exact=True).count
        return {"rows": rows, "collection": self._name, "server": self._url or "none"}

    def _filter(self, where: Condition, negated: bool) -> Any:
        """Return a condition as Qdrant's; negations are pushed down, where NULL is neither."""
        models = self._models
        if where.operator == "not":
            return self._filter(where.parts[0], not negated)
        if where.parts:
            parts = [self._filter(part, negated) for part in where.parts]
            joined = OPPOSITES[where.operator] if negated else where.operator
            return models.Filter(must=parts) if joined == "and" else models.Filter(should=parts)
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=_path(where.column)))
        if where.operator == "null":
            return models.Filter(must_not=[empty]) if negated else models.Filter(must=[empty])
        negated = negated != (where.operator == "!=")
        if not negated:
            return self._leaf(where)
        excluded = [self._leaf(where)]
        return models.Filter(must_not=excluded if where.operator == "has" else [*excluded, empty])

    def _leaf(self, where: Condition) -> Any:
        """Return a comparison; != as =."""
        models, values = self._models, where.value
        values = values if isinstance(values, tuple) else (values,)
        if where.operator == "like" or (where.operator in RANGES and isinstance(values[0], str)):
            raise ValueError(f"--where: Qdrant cannot compare texts by {where.operator.upper()}")
        if where.operator in RANGES:
            ranges = [models.Range(**{RANGES[where.operator]: values[0]})]
        elif isinstance(values[0], str):
            match = models.MatchAny(any=list(values))
            return models.Filter(must=[models.FieldCondition(key=_path(where.column), match=match)])
        else:
            ranges = [models.Range(gte=value, lte=value) for value in values]
        conditions = [models.FieldCondition(key=_path(where.column), range=each) for each in ranges]
        return models.Filter(should=conditions)


def _path(column: str) -> str:
    return quoted(column, '"')


def _uuid(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))
