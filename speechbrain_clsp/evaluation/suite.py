"""All figures of a model on a test set, as metrics.json, report.html and a table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain
import torch
from torch import Tensor

import speechbrain_clsp
from speechbrain_clsp.captions.policies import evaluation_captions
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.clips import CAPTION_PLACES, whole_files
from speechbrain_clsp.evaluation.report import write_report
from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_chance, retrieval_values
from speechbrain_clsp.evaluation.statistics import bootstrap_mean, bootstrap_recall
from speechbrain_clsp.evaluation.zero_shot import Task, accuracy_metrics, classify, read_tasks
from speechbrain_clsp.utils.files import sha256_of_file


@dataclass
class Evaluation:
    """What was embedded, for figures and for the report.

    Arguments
    ---------
    rows : list of dict
        N rows of the manifest.
    captions : dict
        For ``global`` and ``fine``, N captions.
    speech : Tensor
        [N, D].
    text : dict
        For ``global`` and ``fine``, [N, D].
    """

    rows: list[dict[str, Any]]
    captions: dict[str, list[str]]
    speech: Tensor
    text: dict[str, Tensor]


def evaluate(
    clsp: Any,
    manifest: Manifest,
    tasks: str | os.PathLike,
    output_folder: str | os.PathLike,
    training_log: str | os.PathLike | None = None,
    model_name: str = "CLSP",
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a model by retrieval and by zero-shot classification.

    Arguments
    ---------
    clsp : CLSP
        Anything with ``encode_files(paths) -> [N, D]`` and ``encode_text(texts) -> [N, D]``.
    manifest : Manifest
        The test clips.
    tasks : str or path
        Prompts: a file, or the name of a set; see
        :func:`~speechbrain_clsp.evaluation.zero_shot.read_tasks`.
    output_folder : str or path
        Gets ``metrics.json`` and ``report.html``.
    training_log : str or path, optional
        SpeechBrain's ``train_log.txt``, for the report's curves.
    model_name : str
        What reports call the model.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        The contents of ``metrics.json``. Figures are dicts of ``value``, ``low``, ``high`` (95 %
        bootstrap interval) and ``chance``, all in [0, 1].
    """
    output_folder = Path(output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    with whole_files(manifest) as rows:
        evaluation = embed(clsp, rows)
        metrics = _metrics(clsp, manifest, tasks, evaluation, model_name, seed)
        partial = output_folder / "metrics.json.partial"
        partial.write_text(json.dumps(metrics, indent=2), encoding="utf-8")
        os.replace(partial, output_folder / "metrics.json")
        write_report(output_folder / "report.html", metrics, evaluation, training_log)
    return metrics


def _metrics(
    clsp: Any, manifest: Manifest, tasks, evaluation: Evaluation, model_name: str, seed: int
) -> dict[str, Any]:
    """Return the contents of ``metrics.json``."""
    return {
        "model": model_name,
        "manifest": manifest.path.name,
        "manifest_sha256": sha256_of_file(manifest.path),
        "clips": len(manifest),
        "seed": seed,
        "versions": {
            "speechbrain-clsp": speechbrain_clsp.__version__,
            "speechbrain": speechbrain.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "retrieval": {
            kind: retrieval_figures(evaluation.speech, evaluation.text[kind], seed)
            for kind in CAPTION_PLACES
        },
        "zero_shot": {
            task.name: _without_hits(zero_shot_figures(clsp, task, evaluation, seed))
            for task in read_tasks(tasks)
        },
    }


def embed(clsp: Any, rows: list[dict[str, Any]]) -> Evaluation:
    """Embed every clip, a file of its own, and its global and fine caption, once."""
    by_kind = zip(*(evaluation_captions(row).positives for row in rows))
    captions = {kind: list(texts) for kind, texts in zip(CAPTION_PLACES, by_kind)}
    speech = clsp.encode_files([row["audio"] for row in rows]).float().cpu()
    text = {kind: clsp.encode_text(texts).float().cpu() for kind, texts in captions.items()}
    return Evaluation(rows, captions, speech, text)


def retrieval_figures(speech: Tensor, text: Tensor, seed: int) -> dict[str, dict[str, float]]:
    """Retrieval with intervals and chance levels; keys as ``speech_to_text_R@1``."""
    chance = retrieval_chance(len(speech))
    return {
        name: _figure(values.mean(), bootstrap_mean(values, seed), chance[name.rsplit("_", 1)[1]])
        for name, values in retrieval_values(speech, text).items()
    }


def zero_shot_figures(clsp: Any, task: Task, evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """Zero-shot accuracy on the clips that have a class; ``hits`` [n] are 1 for right answers."""
    labels = np.array([task.label_of(row) for row in evaluation.rows])
    known = labels >= 0
    classes = list(task.prompts)
    if not known.any():
        return {"classes": classes, "n": 0}
    prompts, sizes = task.embed(clsp.encode_text)
    predicted = classify(evaluation.speech, prompts, sizes, task.pool).numpy()[known]
    labels = labels[known]
    metrics = accuracy_metrics(predicted, labels, len(classes))
    hits = (predicted == labels).astype(float)
    return {
        "WA": _figure(metrics["WA"], bootstrap_mean(hits, seed), metrics["chance_WA"]),
        "UAR": _figure(
            metrics["UAR"], bootstrap_recall(predicted, labels, seed), metrics["chance_UAR"]
        ),
        "classes": classes,
        "confusion": metrics["confusion"],
        "n": metrics["n"],
        "hits": hits,
    }


def _without_hits(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figure for name, figure in figures.items() if name != "hits"}


def _figure(value: float, interval: tuple[float, float], chance: float) -> dict[str, float]:
    return {"value": float(value), "low": interval[0], "high": interval[1], "chance": chance}


def format_table(metrics: Mapping[str, Any]) -> str:
    """Lay the figures out for a terminal, in percent.

    Arguments
    ---------
    metrics : dict
        As :func:`evaluate` returns them.

    Returns
    -------
    str
        The table.
    """
    lines = [f"{metrics['model']} on {metrics['clips']} clips of {metrics['manifest']}, in %"]
    lines += _aligned(("retrieval", "value", "95 % interval", "chance"), _retrieval_rows(metrics))
    lines += _aligned(("zero-shot", "value", "95 % interval", "chance"), _zero_shot_rows(metrics))
    return "\n".join(lines)


def _retrieval_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (f"{kind} {name.replace('_', ' ')}", *_cells(figure))
        for kind, figures in metrics["retrieval"].items()
        for name, figure in figures.items()
    ]


def _zero_shot_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (f"{task} {name} ({figures['n']})", *_cells(figures[name]))
        for task, figures in metrics["zero_shot"].items()
        for name in ("WA", "UAR")
        if figures["n"]
    ]


def _cells(figure: Mapping[str, float]) -> tuple[str, str, str]:
    value, low, high, chance = (
        f"{100 * figure[key]:.1f}" for key in ("value", "low", "high", "chance")
    )
    return value, f"{low} - {high}", chance


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(cells, widths))
        return "  ".join([cells[0].ljust(widths[0]), *others])

    return ["", line(header), line(["-" * width for width in widths]), *map(line, rows)]
