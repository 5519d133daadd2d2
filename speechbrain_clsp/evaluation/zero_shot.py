"""Zero-shot classification: the class is the prompt that is nearest to the speech.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.dataio.labels import value_of

PROMPTS = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Task:
    """A classification task.

    Arguments
    ---------
    name : str
        What it is called in reports.
    column : str
        Where the true class stands: a column of the manifest, or ``labels.<key>``.
    prompts : dict
        For each class, one or more prompts.
    pool : str
        What a class with several prompts is: their ``mean``, where they are wordings of the same;
        the nearest of them (``max``), where they are kinds of it that have little in common.
    """

    name: str
    column: str
    prompts: dict[str, list[str]]
    pool: str = "mean"

    def __post_init__(self) -> None:
        if self.pool not in ("mean", "max"):
            raise ValueError(f"pool of {self.name!r} must be 'mean' or 'max', not {self.pool!r}")

    def label_of(self, row: Mapping[str, Any]) -> int:
        """Return a row's class as an index, -1 if it has none.

        Raises
        ------
        ValueError
            If the row has a class that no prompt stands for.
        """
        value = value_of(row, self.column)
        if value is None:
            return -1
        if value not in self.prompts:
            raise ValueError(
                f"Clip {row['id']!r}: {self.column} is {value!r}, for which {self.name!r} has no"
                f" prompt; it has {sorted(self.prompts)}"
            )
        return list(self.prompts).index(value)


def read_tasks(source: str | os.PathLike) -> list[Task]:
    """Read tasks from a JSON file.

    Arguments
    ---------
    source : str or path
        A file, or the name of a set that comes with the package (``mini``). The file maps the
        name of a task to ``{"column": ..., "prompts": {class: prompt or list of prompts}}``, and
        possibly ``"pool": "max"``.

    Returns
    -------
    list of Task
        The tasks, in the file's order.

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
    """
    path = PROMPTS / f"{source}.json"
    path = path if path.is_file() else Path(source)
    if not path.is_file():
        known = sorted(file.stem for file in PROMPTS.glob("*.json"))
        raise FileNotFoundError(
            f"No prompt file {source}; sets that come with the package: {known}"
        )
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        return [
            Task(
                name,
                task["column"],
                {k: [v] if isinstance(v, str) else list(v) for k, v in task["prompts"].items()},
                task.get("pool", "mean"),
            )
            for name, task in tasks.items()
        ]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a prompt file ({error!r}): it must map task names to"
            ' {"column": ..., "prompts": {class: prompt}}'
        ) from error


def classify(speech: Tensor, prompts: Tensor, sizes: list[int], pool: str = "mean") -> Tensor:
    """Pick the nearest class.

    Arguments
    ---------
    speech : Tensor
        [N, D] of unit norm.
    prompts : Tensor
        [P, D] of unit norm, class by class.
    sizes : list of int
        Number of prompts of each class.
    pool : str
        A class's cosine is that with the normalised ``mean`` of its prompts, or the greatest of
        those with each of them (``max``).

    Returns
    -------
    Tensor
        [N] int64.

    Example
    -------
    >>> classify(torch.eye(2), torch.eye(2)[[1, 0]], [1, 1]).tolist()
    [1, 0]
    """
    groups = prompts.split(sizes)
    if pool == "max":
        cosines = torch.stack([(speech @ group.T).amax(dim=1) for group in groups], dim=1)
    else:
        classes = torch.stack([group.mean(dim=0) for group in groups])
        cosines = speech @ torch.nn.functional.normalize(classes, dim=-1).T
    return cosines.argmax(dim=1)


def accuracy_metrics(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, Any]:
    """Compute weighted accuracy, unweighted average recall and the confusion matrix.

    Arguments
    ---------
    predicted, labels : numpy.ndarray
        [N] int, classes.
    n_classes : int
        Number of classes.

    Returns
    -------
    dict
        ``WA`` and ``UAR`` in [0, 1], the latter over the classes that occur; ``confusion``
        [true][predicted] counts; ``chance_WA``, the share of the largest class, and
        ``chance_UAR``, one over the number of classes that could be answered.

    Example
    -------
    >>> metrics = accuracy_metrics(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    >>> metrics["UAR"], metrics["confusion"]
    (0.75, [[1, 0], [1, 1]])
    """
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    totals = confusion.sum(axis=1)
    present = totals > 0
    return {
        "WA": float(confusion.trace() / totals.sum()),
        "UAR": float((confusion.diagonal()[present] / totals[present]).mean()),
        "confusion": confusion.tolist(),
        "chance_WA": float(totals.max() / totals.sum()),
        "chance_UAR": 1 / n_classes,
        "n": int(totals.sum()),
    }
