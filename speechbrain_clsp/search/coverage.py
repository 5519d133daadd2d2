"""How much of each attribute a corpus has, by zero-shot classification of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.evaluation.zero_shot import Task, classify
from speechbrain_clsp.search.store import EmbeddingStore, vectors_of
from speechbrain_clsp.utils.html import bar_chart, table, write_page


@dataclass(frozen=True)
class Coverage:
    """The classes of one attribute in a corpus.

    Arguments
    ---------
    name : str
        Of the attribute.
    counts : dict of int
        Clips by the class that a model gives them.
    """

    name: str
    counts: dict[str, int]

    def rows(self) -> list[list[str]]:
        """Return class, clips and percent, as text."""
        total = max(1, sum(self.counts.values()))
        return [
            [label, str(count), f"{100 * count / total:.1f}"]
            for label, count in self.counts.items()
        ]


def measure_coverage(
    store: EmbeddingStore, tasks: Sequence[Task], encode_text: Callable[[list[str]], Tensor]
) -> list[Coverage]:
    """Classify all clips of a store.

    Arguments
    ---------
    store : EmbeddingStore
        Of speech.
    tasks : list of Task
        Attributes and their prompts, as :func:`~speechbrain_clsp.evaluation.zero_shot.read_tasks`
        reads them.
    encode_text : callable
        The store's model: M captions -> [M, D] of unit norm.

    Returns
    -------
    list of Coverage
        In the order of tasks.

    Example
    -------
    >>> from speechbrain_clsp.search.store import write_store
    >>> write_store(getfixture("tmp_path") / "s", ["a", "b"], np.eye(2))
    >>> task = Task("gender", "gender", {"male": ["A man."], "female": ["A woman."]})
    >>> store = EmbeddingStore(getfixture("tmp_path") / "s")
    >>> measure_coverage(store, [task], lambda texts: torch.tensor([[0.6, 0.8]] * 2))[0].counts
    {'male': 2, 'female': 0}
    """
    if store.provenance.kind != "speech":
        raise ValueError(f"{store.folder} holds vectors of captions: give a store of speech")
    classes = [task.embed(encode_text) for task in tasks]
    counts = [np.zeros(len(task.prompts), int) for task in tasks]
    for shard in store.tables():
        speech = torch.from_numpy(vectors_of(shard.column("vector")).astype(np.float32))
        for task, prompts, count in zip(tasks, classes, counts):
            answers = classify(speech, prompts, task.pool).numpy()
            count += np.bincount(answers, minlength=len(count))
    return [
        Coverage(task.name, dict(zip(task.prompts, count.tolist())))
        for task, count in zip(tasks, counts)
    ]


def write_coverage(path: str, coverages: Sequence[Coverage], title: str) -> None:
    """Write a page with a table and a chart of each attribute."""
    sections = []
    for each in coverages:
        sections.append(table([each.name, "clips", "%"], each.rows()))
        sections.append(
            bar_chart(f"{each.name}: clips", {k: float(v) for k, v in each.counts.items()})
        )
    write_page(path, title, sections)
