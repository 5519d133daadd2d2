"""report.html: one page, in one file, that shows what a model can do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_ranks
from speechbrain_clsp.utils.html import (
    audio_player,
    confusion_matrix,
    heat_map,
    line_chart,
    table,
)

if TYPE_CHECKING:
    from speechbrain_clsp.evaluation.suite import Evaluation

HEAT_MAP_CLIPS = 16
EXAMPLES = 5
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1b1e;background:#fff;margin:0 auto;
max-width:1080px;padding:1.5rem}
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.2rem 0 .6rem}
p.note,figcaption{color:#495057;font-size:.88rem}.scroll{overflow-x:auto}
.scroll td,figcaption span{white-space:nowrap}.scroll td.caption{white-space:normal}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.28rem .6rem;text-align:right;border-bottom:1px solid #e9ecef}
th:first-child,td:first-child{text-align:left}th{font-weight:600}
.matrix td,.matrix th{text-align:center;padding:.25rem .45rem;border:1px solid #fff}
.matrix th:first-child{text-align:left}.heat td.caption{text-align:left;min-width:20rem;
font-size:.8rem;line-height:1.25}.heat td.own{outline:2px solid #d9480f;outline-offset:-2px}
.row{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0;max-width:100%;overflow-x:auto}
svg{width:460px;max-width:100%;height:auto}svg line{stroke:#dee2e6}
svg polyline{fill:none;stroke-width:2}svg text{font-size:11px;fill:#495057}
svg .x{text-anchor:middle}svg .y{text-anchor:end}
.card{border:1px solid #dee2e6;border-radius:8px;padding:.8rem 1rem;margin:.6rem 0}
.card p{margin:.3rem 0}.card b{font-weight:600}audio{width:100%;max-width:26rem;height:36px}
"""


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    evaluation: Evaluation,
    training_log: str | os.PathLike | None = None,
) -> None:
    """Write the page, whole or not at all.

    Arguments
    ---------
    path : str or path
        Where it goes.
    metrics : dict
        As in ``metrics.json``.
    evaluation : Evaluation
        Clips, captions and embeddings.
    training_log : str or path, optional
        SpeechBrain's ``train_log.txt``.
    """
    sections = [
        _header(metrics),
        _figures_section(metrics),
        _curves(training_log) if training_log is not None else "",
        _confusions(metrics),
        _heat_map(evaluation),
        _examples(evaluation),
    ]
    write_page(path, metrics["model"], sections)


def write_page(path: str | os.PathLike, title: str, sections: Sequence[str]) -> None:
    """Write a self-contained page, whole or not at all.

    Arguments
    ---------
    path : str or path
        Where it goes.
    title : str
        What the browser calls it.
    sections : list of str
        HTML, in the order in which it is read.
    """
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(sections)}</body></html>"
    )
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _header(metrics: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    return (
        f"<h1>{escape(metrics['model'])}</h1><p class='note'>{metrics['clips']} clips of"
        f" {escape(metrics['manifest'])} (sha256 {metrics['manifest_sha256'][:12]}), seed"
        f" {metrics['seed']}; {escape(versions)}</p>"
    )


def _figures_section(metrics: Mapping[str, Any]) -> str:
    header = ["", "speech to text", "chance", "text to speech", "chance"]
    parts = ["<h2>Retrieval</h2><p class='note'>In %, with 95 % bootstrap intervals.</p>"]
    for kind, figures in metrics["retrieval"].items():
        names = [name.rsplit("_", 1)[1] for name in figures if name.startswith("speech_to_text")]
        rows = []
        for name in names:
            pair = [figures[f"{way}_{name}"] for way in ("speech_to_text", "text_to_speech")]
            rows.append([name, *(cell for figure in pair for cell in _cells(figure))])
        parts.append(f"<h3>{escape(kind)} captions</h3>{table(header, rows)}")
    header = ["task", "clips", "weighted accuracy", "chance", "unweighted recall", "chance"]
    rows = [
        [task, str(figures["n"]), *_cells(figures["WA"]), *_cells(figures["UAR"])]
        for task, figures in metrics["zero_shot"].items()
        if figures["n"]
    ]
    parts.append(
        "<h2>Zero-shot classification</h2><p class='note'>The nearest prompt is the answer. Chance:"
        " the share of the largest class, and one over the number of classes.</p>"
        + table(header, rows)
    )
    return "".join(parts)


def _cells(figure: Mapping[str, float]) -> list[str]:
    value, low, high, chance = (100 * figure[key] for key in ("value", "low", "high", "chance"))
    return [f"{value:.1f} ({low:.1f} - {high:.1f})", f"{chance:.1f}"]


def read_training_log(path: str | os.PathLike) -> dict[str, list[tuple[float, float]]]:
    """Read the curves of SpeechBrain's train_log.txt.

    Arguments
    ---------
    path : str or path
        The log, one line per epoch such as
        ``epoch: 1, lr: 1.0e-02 - train loss: 3.2 - valid loss: 3.0, valid fine_R@1: 0.1``.

    Returns
    -------
    dict
        For each name, points (epoch, value); an epoch that was run twice counts once.

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


def _curves(training_log: str | os.PathLike) -> str:
    curves = read_training_log(training_log)
    losses = {name: points for name, points in curves.items() if name.endswith(("loss", "chance"))}
    recalls = {name: points for name, points in curves.items() if "R@" in name}
    charts = [
        line_chart(title, series)
        for title, series in (("Loss by epoch", losses), ("Recall on dev by epoch", recalls))
        if series
    ]
    return f'<h2>Training</h2><div class="row">{"".join(charts)}</div>' if charts else ""


def _confusions(metrics: Mapping[str, Any]) -> str:
    matrices = [
        confusion_matrix(task, figures["classes"], figures["confusion"])
        for task, figures in metrics["zero_shot"].items()
        if figures["n"]
    ]
    return f'<h2>Confusions</h2><div class="row">{"".join(matrices)}</div>'


def _heat_map(evaluation: Evaluation) -> str:
    count = len(evaluation.rows)
    chosen = torch.linspace(0, count - 1, min(HEAT_MAP_CLIPS, count)).long()
    scores = evaluation.text["fine"][chosen] @ evaluation.speech[chosen].T
    return (
        "<h2>Similarity</h2><p class='note'>100 x cosine of fine captions (rows) with clips"
        " (columns); a frame marks what belongs together.</p>"
        + heat_map(
            [evaluation.captions["fine"][i] for i in chosen],
            [evaluation.rows[i]["id"] for i in chosen],
            scores.numpy(),
        )
    )


def _examples(evaluation: Evaluation) -> str:
    """Show the surest right answers and the deepest wrong ones, from speech to fine captions."""
    scores = evaluation.speech @ evaluation.text["fine"].T
    ranks = retrieval_ranks(evaluation.speech, evaluation.text["fine"])
    own = scores.diagonal()
    others = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -2.0)
    margin = own - others.max(dim=1).values
    best, worst = margin.argsort(descending=True)[:EXAMPLES], margin.argsort()[:EXAMPLES]
    parts = []
    for title, chosen in (("Surest retrievals", best), ("Worst retrievals", worst)):
        parts.append(f"<h2>{title}</h2>")
        for i in chosen.tolist():
            top = int(scores[i].argmax())
            parts.append(_card(evaluation, i, top, int(ranks[i]), scores[i]))
    return "".join(parts)


def _card(evaluation: Evaluation, i: int, top: int, rank: int, scores: torch.Tensor) -> str:
    captions, row = evaluation.captions["fine"], evaluation.rows[i]
    return (
        f'<div class="card"><p><b>{escape(row["id"])}</b>, own caption on rank {rank}</p>'
        f"{audio_player(row['audio'])}"
        f"<p>own ({scores[i]:.2f}): {escape(captions[i])}</p>"
        f"<p>first ({scores[top]:.2f}): {escape(captions[top])}</p></div>"
    )
