"""Attributes of clips as class indices, and prompts that say their values."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_clsp.lobes.attribute_heads import UNLABELED
from speechbrain_clsp.utils.reading import read_json


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
    values : dict of list of str, or of dict
        For each column of the manifest (or ``labels.<key>``) its values, in the order of indices:
        clips may have no others. Or which class each value means: clips with other values are then
        unlabeled.

    Example
    -------
    >>> labels = AttributeLabels({"gender": ["male", "female"], "pitch": ["low", "high"]})
    >>> labels({"id": "a", "gender": "female", "pitch": None})
    [1, -1]
    >>> labels = AttributeLabels({"gender": {"m": "male", "f": "female", "w": "female"}})
    >>> labels.values, labels({"id": "a", "gender": "w"}), labels({"id": "b", "gender": "?"})
    ({'gender': ['male', 'female']}, [1], [-1])
    """

    def __init__(self, values: Mapping[str, Sequence[str] | Mapping[str, str]]) -> None:
        self.values: dict[str, list[str]] = {}
        self.classes: dict[str, dict[str, str]] = {}  # of columns that may have other values
        for column, known in values.items():
            if isinstance(known, Mapping):
                self.classes[column] = dict(known)
                known = list(dict.fromkeys(known.values()))
            self.values[column] = list(known)

    def __call__(self, row: Mapping[str, Any]) -> list[int]:
        """Return a row's class for each attribute, -1 where it has none.

        Raises
        ------
        ValueError
            If the row has a value that is not listed.
        """
        indices = []
        for column, known in self.values.items():
            value = value_of(row, column)
            if column in self.classes:
                value = self.classes[column].get(value)
            if value is not None and value not in known:
                raise ValueError(
                    f"Clip {row['id']!r}: {column} is {value!r}, none of {known}: list it among the"
                    " attribute's values, or fix the manifest"
                )
            indices.append(UNLABELED if value is None else known.index(value))
        return indices


class AttributePrompts:
    """Prompts that say each value of each attribute, in many words.

    A model that is trained on captions alone has rarely seen a text that says one thing only. In
    each batch one prompt is drawn for every value, and clips are classified by their cosines with
    the prompts, as in zero-shot classification.

    Arguments
    ---------
    labels : AttributeLabels
        The attributes and their values, in the order of classes.
    prompts : dict or str or Path
        For each attribute and value its prompts: a list of prompts, or ``templates`` with ``{}``
        and, for each value, ``words`` to put there; or a list of several such sets of words, as
        adverbs and whole sentences need different templates. A path is that of a JSON file of it.
        Attributes that it lacks are not classified by prompts; those that start with ``_`` are
        comments.

    Raises
    ------
    ValueError
        If an attribute is not among the labels, or a value has no prompt.

    Example
    -------
    >>> labels = AttributeLabels({"gender": ["male", "female"], "rate": ["slow", "fast"]})
    >>> prompts = AttributePrompts(labels, {
    ...     "gender": {"male": ["A man."], "female": ["A woman."]},
    ...     "rate": {"templates": ["It is {}."], "words": {"slow": ["slow"], "fast": ["fast"]}},
    ... })
    >>> prompts.draw(random.Random(0)), prompts.n_values
    (['A man.', 'A woman.', 'It is slow.', 'It is fast.'], [2, 2])
    """

    def __init__(self, labels: AttributeLabels, prompts: Mapping[str, Any] | str | Path) -> None:
        given: Mapping[str, Any] = prompts if isinstance(prompts, Mapping) else read_json(prompts)
        by_attribute = {name: each for name, each in given.items() if not name.startswith("_")}
        if unknown := sorted(set(by_attribute) - set(labels.values)):
            raise ValueError(f"Prompts for {unknown}, which are not among {sorted(labels.values)}")
        # Of each attribute, sets of templates and, by value, the words to put there.
        self.sets: list[list[tuple[Sequence[str], list[Sequence[str]]]]] = []
        self.n_values: list[int] = []  # of each attribute, 0 for one without prompts
        for name, values in labels.values.items():
            sets = by_attribute.get(name, [])
            self.sets.append([])
            for of_attribute in sets if isinstance(sets, list) else [sets]:
                words = of_attribute.get("words", of_attribute)
                if lacking := [value for value in values if not words.get(value)]:
                    raise ValueError(f"Attribute {name!r} has no prompt for {lacking}")
                templates = of_attribute.get("templates", ["{}"])
                self.sets[-1].append((templates, [words[value] for value in values]))
            self.n_values.append(len(values) if self.sets[-1] else 0)

    def texts(self) -> list[str]:
        """Return all prompts that may be drawn."""
        return [
            template.replace("{}", word)
            for sets in self.sets
            for templates, words in sets
            for template in templates
            for each in words
            for word in each
        ]

    def draw(self, generator: random.Random) -> list[str]:
        """Return a prompt for each value: of one attribute after the other, in one template."""
        drawn = []
        for sets in filter(None, self.sets):
            templates, words = generator.choice(sets)
            template = generator.choice(templates)
            drawn += [template.replace("{}", generator.choice(each)) for each in words]
        return drawn
