"""Attributes of clips as class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechbrain_clsp.lobes.attribute_heads import UNLABELED


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
        classes = []
        for column, known in self.values.items():
            value = value_of(row, column)
            if value is not None and value not in known:
                raise ValueError(
                    f"Clip {row['id']!r}: {column} is {value!r}, none of {known}: list it among the"
                    " attribute's values, or fix the manifest"
                )
            classes.append(UNLABELED if value is None else known.index(value))
        return classes
