"""Zero-shot classification: the answer is the class whose prompt is nearest to the speech."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.dataio.manifest import SCHEMA
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean, bootstrap_recall
from speechbrain_clsp.utils.checks import BadEntriesError, check_texts
from speechbrain_clsp.utils.reading import read_json

PROMPTS = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Task:
    """A classification task, as :func:`read_tasks` reads it.

    Arguments
    ---------
    name : str
        What it is called in reports.
    column : str
        Where the true class stands: a column of the manifest, or ``labels.<key>``.
    prompts : dict
        For each class, one or more prompts.
    pool : str
        How a class with several prompts is scored: by their ``mean``, if they word the same; by
        the nearest of them (``max``), if they are kinds of it that have little in common.
    templates : sequence of str
        What prompts are put into, in place of ``{}``. Several are an ensemble: a prompt is the
        normalized mean of its wordings.
    values : dict, optional
        Which class a value of the column means, such as ``{"hap": "happy", "exc": "happy"}``. Clips
        with other values are left out. Default: values are classes.
    below : dict, optional
        For a column of numbers, each class's upper bound, ascending; None for the last.

    Example
    -------
    >>> task = Task("age", "labels.age", {"young": ["A child."], "old": ["A man."]},
    ...             below={"young": 20, "old": None})
    >>> task.label_of({"id": "a", "labels": {"age": "20"}})
    1
    """

    name: str
    column: str
    prompts: dict[str, list[str]]
    pool: str = "mean"
    templates: Sequence[str] = ("{}",)
    values: Mapping[str, str] | None = None
    below: Mapping[str, float | None] | None = None

    def __post_init__(self) -> None:
        if self.pool not in ("mean", "max"):
            raise ValueError(f"pool of {self.name!r} must be 'mean' or 'max', not {self.pool!r}")
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ValueError(f"every template of {self.name!r} must hold {{}}: {self.templates}")
        name, _, key = self.column.partition(".")
        if name not in SCHEMA.names or (name == "labels") != bool(key):
            raise ValueError(
                f"column of {self.name!r} is {self.column!r}, which no manifest has: it must be"
                f" labels.<key> or one of {', '.join(SCHEMA.names)}"
            )
        if not self.prompts or not all(self.prompts.values()):
            raise ValueError(f"{self.name!r} needs at least one prompt for each class")
        for label, prompts in self.prompts.items():
            check_texts(prompts, f"prompts of {self.name!r}, {label!r}")
        unknown = {*(self.values or {}).values(), *(self.below or {})} - set(self.prompts)
        if unknown:
            raise ValueError(f"{self.name!r} has no prompts for {sorted(unknown)}")

    def label_of(self, row: Mapping[str, Any]) -> int:
        """Return a row's class as an index, -1 if it has none.

        Raises
        ------
        ValueError
            If the row has a class that no prompt stands for.
        """
        value = value_of(row, self.column)
        if self.values is not None:
            value = self.values.get(value)
        if value is None:
            return -1
        if self.below is not None:
            value = self._group_of(row["id"], value, self.below)
        if value not in self.prompts:
            raise ValueError(
                f"Clip {row['id']!r}: {self.column} is {value!r}, for which {self.name!r} has no"
                f" prompt; it has {sorted(self.prompts)}"
            )
        return list(self.prompts).index(value)

    def _group_of(self, clip: str, value: str, below: Mapping[str, float | None]) -> str:
        try:
            number = float(value)
        except ValueError as error:
            raise ValueError(f"Clip {clip!r}: {self.column} is {value!r}, not a number") from error
        for name, bound in below.items():
            if bound is None or number < bound:
                return name
        raise ValueError(f"Clip {clip!r}: {self.column} is {value}, beyond {below}")

    @property
    def texts(self) -> list[str]:
        """All prompts in all templates, in the order of classes."""
        words = [word for group in self.prompts.values() for word in group]
        return [template.replace("{}", word) for word in words for template in self.templates]

    def embed(self, encode_text: Callable[[list[str]], Tensor]) -> list[Tensor]:
        """Embed the prompts of each class; returns [P, D] of unit norm for its P prompts.

        ``encode_text`` takes a list of M str and returns [M, D] of unit norm.
        """
        wordings = encode_text(self.texts).float().cpu().unflatten(0, (-1, len(self.templates)))
        prompts = wordings[:, 0]
        if len(self.templates) > 1:
            prompts = torch.nn.functional.normalize(wordings.mean(dim=1), dim=-1)
        return list(prompts.split([len(group) for group in self.prompts.values()]))


def read_tasks(source: str | os.PathLike, ensemble: bool = False) -> list[Task]:
    """Read tasks from a JSON file.

    Arguments
    ---------
    source : str or path
        A file, or the name of a set that comes with the package: ``mini``, ``mini_unseen`` (in
        words that captions of MiniFCaps do not use), the published ``iemocap``, ``ravdess`` and
        ``crema_d``, these with ``_maeb`` behind them, ``esd`` or ``expresso``. The file maps a
        task's name to ``{"column": ..., "prompts": {class: prompt or list of prompts}}``, and
        possibly ``pool``, ``template``, ``ensemble`` (further templates), ``values`` and ``below``,
        which :class:`Task` explains. Names that start with ``_`` are comments.
    ensemble : bool
        Whether to use the further templates as well. The paper does not.

    Returns
    -------
    list of Task
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file or set.
    ValueError
        If the file is not of this form.

    Example
    -------
    >>> [task.name for task in read_tasks("mini")][:2]
    ['gender', 'speaking rate']
    >>> read_tasks("ravdess")[1].prompts["fear"], read_tasks("ravdess")[1].templates
    (['fear'], ['A speaker in a {} tone.'])
    """
    path = PROMPTS / f"{source}.json"
    path = path if path.is_file() else Path(source)
    if not path.is_file():
        known = sorted(file.stem for file in PROMPTS.glob("*.json"))
        raise FileNotFoundError(
            f"No prompt file {source}; sets that come with the package: {known}"
        )
    tasks = read_json(path)
    try:
        return [
            Task(
                name,
                task["column"],
                {k: [v] if isinstance(v, str) else list(v) for k, v in task["prompts"].items()},
                task.get("pool", "mean"),
                [task.get("template", "{}"), *(task.get("ensemble", []) if ensemble else [])],
                task.get("values"),
                task.get("below"),
            )
            for name, task in tasks.items()
            if not name.startswith("_")
        ]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a prompt file ({error!r}): it must map task names to"
            ' {"column": ..., "prompts": {class: prompt}}'
        ) from error


def labels_of(tasks: Iterable[Task], row: Mapping[str, Any]) -> list[int]:
    """Return a row's class in each task, -1 where it has none.

    Example
    -------
    >>> labels_of(read_tasks("iemocap")[:1], {"id": "a", "labels": {"emotion": "exc"}})
    [1]
    """
    return [task.label_of(row) for task in tasks]


def check_tasks(tasks: Sequence[Task], rows: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise if clips have classes that no prompt stands for.

    Arguments
    ---------
    tasks : sequence of Task
        The tasks.
    rows : iterable of dict
        Of a manifest.
    where : str
        What messages call it.

    Raises
    ------
    ValueError
        That names the first clips, and says how many there are.
    """
    problems = []
    for row in rows:
        try:
            labels_of(tasks, row)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise BadEntriesError(f"{where}: {len(problems)} clips have no class of a task", problems)


def classify(speech: Tensor, classes: Sequence[Tensor], pool: str = "mean") -> Tensor:
    """Return the nearest class of each clip, [N] int64.

    Arguments
    ---------
    speech : Tensor
        [N, D] of unit norm.
    classes : list of Tensor
        Prompts, as :meth:`Task.embed` returns them.
    pool : str
        A class's cosine is that with the normalized ``mean`` of its prompts, or the greatest of
        those with each of them (``max``).

    Example
    -------
    >>> classify(torch.eye(2), [torch.eye(2)[1:], torch.eye(2)[:1]]).tolist()
    [1, 0]
    """
    if pool == "max":
        cosines = torch.stack([(speech @ group.T).amax(dim=1) for group in classes], dim=1)
    else:
        means = torch.stack([group.mean(dim=0) for group in classes])
        cosines = speech @ torch.nn.functional.normalize(means, dim=-1).T
    return cosines.argmax(dim=1)


def classify_each(speech: Tensor, classes: Sequence[Tensor]) -> Tensor:
    """Classify with one prompt per class at a time; returns [J, N] int64.

    The classes' first prompts are compared with each other, then their second ones, and so on. A
    class that has fewer than the J of another begins anew.

    Arguments
    ---------
    speech : Tensor
        [N, D] of unit norm.
    classes : list of Tensor
        Prompts, as :meth:`Task.embed` returns them.

    Example
    -------
    >>> one, two = torch.eye(2)
    >>> classify_each(torch.eye(2), [torch.stack([one, two]), two[None]]).tolist()
    [[0, 1], [0, 0]]
    """
    number = max(len(group) for group in classes)
    rounds = ([group[j % len(group)][None] for group in classes] for j in range(number))
    return torch.stack([classify(speech, prompts) for prompts in rounds])


def average_recall(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the recall averaged over the classes that occur; [N] int each, N at least 1.

    Example
    -------
    >>> average_recall(np.array([0, 0, 1]), np.array([0, 1, 1]))
    0.75
    """
    hits = predicted == labels
    return float(np.mean([hits[labels == each].mean() for each in np.unique(labels)]))


@dataclass(frozen=True)
class Classification:
    """How a model classified the clips of a task that have a class.

    Arguments
    ---------
    metrics : dict
        ``WA``, weighted accuracy, whose chance level is the largest class; ``UAR``, the average
        recall over the classes that occur, whose chance level is one over the number of classes.
    classes : list of str
        Names of the C classes.
    confusion : numpy.ndarray
        [C, C] int, number of clips by true class and answer.
    hits : numpy.ndarray
        [N] float64, 1 for right answers.
    """

    metrics: dict[str, Estimate]
    classes: list[str]
    confusion: np.ndarray
    hits: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return classes, confusion and ``n``, the number of clips, for JSON."""
        n = len(self.hits)
        return {"classes": self.classes, "confusion": self.confusion.tolist(), "n": n}


def compare_with_labels(
    predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str], seed: int = 0
) -> Classification:
    """Compare answers with true classes, [N] int each, indices of the names ``classes``.

    ``seed`` is that of the bootstrap; for UAR, clips are resampled within their class.

    Example
    -------
    >>> found = compare_with_labels(np.array([0, 0, 1]), np.array([0, 1, 1]), ["a", "b"])
    >>> found.metrics["UAR"].value, found.confusion.tolist()
    (0.75, [[1, 0], [1, 1]])
    """
    size = len(classes)
    confusion = np.bincount(labels * size + predicted, minlength=size**2).reshape(size, size)
    totals = confusion.sum(axis=1)
    hits = (predicted == labels).astype(float)
    accuracy = float(confusion.trace() / totals.sum())
    recall = average_recall(predicted, labels)
    largest = float(totals.max() / totals.sum())
    metrics = {
        "WA": Estimate(accuracy, *bootstrap_mean(hits, seed), largest),
        "UAR": Estimate(recall, *bootstrap_recall(predicted, labels, seed), 1 / size),
    }
    return Classification(metrics, list(classes), confusion, hits)
