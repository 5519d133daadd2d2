"""Attributes of clips as class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNLABELED = -1  # as lobes.attribute_heads ignores it


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """Return a row's value in a column, or in an entry of one, written ``labels.<key>``.

    Example
    -------
    >>> row = {"gender": "male", "labels": {"loudness": "loud"}}
    >>> value_of(row, "gender"), value_of(row, "labels.loudness"), value_of(row, "labels.mood")
    ('male', 'loud', None)
    """
    name, _, key = column.partition(".")
    return row[name].get(key) if key else row[name]


class AttributeLabels:
    """Which attributes of a clip are classified, and their values.

    Arguments
    ---------
    values : dict of list of str
        For each column of the manifest (or ``labels.<key>``) its values, in the order of indices.

    Example
    -------
    >>> labels = AttributeLabels({"gender": ["male", "female"], "pitch": ["low", "high"]})
    >>> labels({"id": "a", "gender": "female", "pitch": None})
    [1, -1]
    """

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self.values = {column: list(known) for column, known in values.items()}

    def __call__(self, row: Mapping[str, Any]) -> list[int]:
        """Return a row's class for each attribute, -1 where it has none.

        Raises
        ------
        ValueError
            If the row has a value that is not listed.
        """
        return [self._index(row, column) for column in self.values]

    def _index(self, row: Mapping[str, Any], column: str) -> int:
        value, known = value_of(row, column), self.values[column]
        if value is None:
            return UNLABELED
        if value not in known:
            raise ValueError(
                f"Clip {row['id']!r}: {column} is {value!r}, none of {known}: list it among the"
                " attribute's values, or fix the manifest"
            )
        return known.index(value)
