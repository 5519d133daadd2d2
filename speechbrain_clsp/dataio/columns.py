"""Single values out of Arrow columns, as fast as Python gets at bytes.

pyarrow's own way to a row, ``table.slice(i, 1).to_pylist()``, takes half a millisecond for the
manifest's columns, most of it for objects made on the way. Here offsets and bytes of a column are
looked at through memory views, which costs no copy and touches only the row's own pages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

Getter = Callable[[int], Any]
_FORMATS = {pa.int32(): "i", pa.int64(): "q", pa.float64(): "d"}


def getters(batch: pa.RecordBatch) -> list[tuple[str, Getter]]:
    """Return, for every column of a batch with values in it, its name and row -> Python value.

    Arguments
    ---------
    batch : pyarrow.RecordBatch
        Columns of string, int32, int64, float64, lists and maps of these.

    Returns
    -------
    list of (str, callable)
        In the order of the columns; those that hold nothing but nulls are left out.

    Example
    -------
    >>> batch = pa.RecordBatch.from_pylist([{"a": "x", "b": [1, 2]}, {"a": None, "b": []}])
    >>> [{name: get(row) for name, get in getters(batch)} for row in (0, 1)]
    [{'a': 'x', 'b': [1, 2]}, {'a': None, 'b': []}]
    """
    columns = zip(batch.schema.names, batch.columns)
    return [(name, getter(c)) for name, c in columns if c.null_count < len(c)]


def getter(values: pa.Array) -> Getter:
    """Return a function index -> Python value of an array, None where it is null."""
    if values.null_count == len(values):
        return lambda i: None
    if values.offset:  # never in a file; a slice's views would start elsewhere
        return lambda i: values[i].as_py()
    get = _getter_of_valid(values)
    if values.null_count == 0:
        return get
    valid = memoryview(values.buffers()[0])
    return lambda i: get(i) if valid[i >> 3] >> (i & 7) & 1 else None


def _getter_of_valid(values: pa.Array) -> Getter:
    kind = values.type
    if pa.types.is_string(kind):
        return _strings(values)
    if kind in _FORMATS:
        numbers = memoryview(values.buffers()[1]).cast("B").cast(_FORMATS[kind])
        return numbers.__getitem__
    if pa.types.is_map(kind):
        bounds, keys, items = _bounds(values), getter(values.keys), getter(values.items)
        return lambda i: [(keys(k), items(k)) for k in range(bounds[i], bounds[i + 1])]
    if pa.types.is_list(kind):
        if len(values.values) == 0:
            return lambda i: []
        if pa.types.is_string(kind.value_type) and values.values.null_count == 0:
            return _lists_of_strings(values)
        bounds, item = _bounds(values), getter(values.values)
        return lambda i: [item(k) for k in range(bounds[i], bounds[i + 1])]
    return lambda i: values[i].as_py()


def _bounds(values: pa.Array) -> memoryview:
    return memoryview(values.buffers()[1]).cast("B").cast("i")


def _strings(values: pa.Array) -> Getter:
    bounds, data = _bounds(values), memoryview(values.buffers()[2] or b"")
    return lambda i: str(data[bounds[i] : bounds[i + 1]], "utf-8")


def _lists_of_strings(values: pa.Array) -> Getter:
    """Return what ``getter`` makes of any list, without a call per item."""
    bounds, inner = _bounds(values), _bounds(values.values)
    data = memoryview(values.values.buffers()[2] or b"")
    return lambda i: [
        str(data[inner[k] : inner[k + 1]], "utf-8") for k in range(bounds[i], bounds[i + 1])
    ]
