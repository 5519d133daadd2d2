"""The files of an evaluation: metrics.json, tables, and report.html, one page in one file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from speechbrain_clsp.evaluation.clips import whole_files
from speechbrain_clsp.evaluation.probes.pairs import write_pairs
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.tables import (
    all_tables,
    heading,
    latex_tables,
    markdown_tables,
    pair_examples,
    provenance,
)
from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.html import audio_player, environment, line_chart, write_page

TEMPLATES = Path(__file__).parent / "templates"


def write_results(
    evaluation: Evaluation,
    folder: str | os.PathLike,
    training_log: str | os.PathLike | None = None,
) -> None:
    """Write ``metrics.json``, ``tables.{md,tex,csv}`` and ``report.html``, each atomically.

    Minimal pairs that were made from captions are written to ``pairs.jsonl``.

    Arguments
    ---------
    evaluation : Evaluation
        As :func:`~speechbrain_clsp.evaluation.suites.run_suite` returns it.
    folder : str or path
        Where they go.
    training_log : str or path, optional
        SpeechBrain's ``train_log.txt``, for curves in the report.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "results"
    >>> write_results(Evaluation("mini", 0), folder)
    >>> sorted(path.name for path in folder.iterdir())
    ['metrics.json', 'report.html', 'tables.csv', 'tables.md', 'tables.tex']
    """
    texts = {
        "metrics.json": json.dumps(evaluation.to_dict(), indent=2, allow_nan=False),
        "tables.md": markdown_tables(evaluation),
        "tables.tex": latex_tables(evaluation),
        "tables.csv": evaluation.to_frame().to_csv(index=False),
    }
    if evaluation.made_pairs:
        write_pairs(Path(folder) / "pairs.jsonl", evaluation.made_pairs)
    for name, text in texts.items():
        atomic_write(Path(folder) / name, text)
    title = f"Evaluation: {evaluation.suite}"
    template = environment(TEMPLATES).get_template("report.html")
    body = template.render(
        title=title,
        evaluation=evaluation,
        tables=all_tables(evaluation),
        charts=[] if training_log is None else _training_curves(training_log),
        provenance=provenance(evaluation),
        heading=heading,
        pair_examples=pair_examples(evaluation),
        shade=_shade,
        player=clip_player,
        mark=mark_difference,
    )
    write_page(Path(folder) / "report.html", title, [body])


def clip_player(row: Mapping[str, Any]) -> Markup:
    """Return an audio player that holds the clip of a manifest's row."""
    with whole_files([row]) as (clip,):
        return audio_player(clip["audio"])


def mark_difference(text: str, other: str) -> Markup:
    """Return a text as HTML, in which the words are marked that another text has otherwise.

    Example
    -------
    >>> print(mark_difference("He speaks at a slow pace.", "He speaks at a fast pace."))
    He speaks at a <mark>slow</mark> pace.
    """
    words = text.split()
    pieces = []
    for change, start, end, *_ in SequenceMatcher(None, words, other.split(), False).get_opcodes():
        if start < end:
            piece = escape(" ".join(words[start:end]))
            pieces.append(piece if change == "equal" else Markup(f"<mark>{piece}</mark>"))
    return Markup(" ").join(pieces)


def _shade(value: float, low: float, high: float) -> str:
    """Return a cell's style: from white to blue, with a text color that stays readable."""
    depth = min(max((value - low) / (high - low or 1.0), 0.0), 1.0)
    red, green, blue = (round(255 + depth * (end - 255)) for end in (29, 78, 216))
    return f"background:rgb({red},{green},{blue});color:{'#fff' if depth > 0.55 else '#111'}"


def _training_curves(path: str | os.PathLike) -> list[Markup]:
    """Return charts of the loss, and of the recall on validation data, by epoch."""
    curves = read_training_log(path)
    losses = {name: points for name, points in curves.items() if name.endswith(("loss", "chance"))}
    recalls = {name: points for name, points in curves.items() if "R@" in name}
    titles = {"Loss by epoch": losses, "Recall by epoch": recalls}
    return [line_chart(title, series) for title, series in titles.items() if series]


def read_training_log(path: str | os.PathLike) -> dict[str, list[tuple[float, float]]]:
    """Read the curves of SpeechBrain's train_log.txt: for each name, points (epoch, value).

    An epoch that was run twice counts once.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1, lr: 1.00e-02 - train loss: 3.20 - valid loss: 3.00")
    >>> read_training_log(path)["train loss"]
    [(1.0, 3.2)]
    """
    curves: dict[str, dict[float, float]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        values = dict(re.findall(r"([A-Za-z][\w@ ]*?): (-?[\d.]+(?:e[+-]?\d+)?)", line))
        if "epoch" not in values:
            continue
        epoch = float(values.pop("epoch"))
        for name, value in values.items():
            curves.setdefault(name, {})[epoch] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}
