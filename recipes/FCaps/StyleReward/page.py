"""A page of what came of requests: figures, curves of the training, clips before and after."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import Any

import soundfile
from outcome import Outcome
from styles import UNITS
from torch import Tensor

from speechbrain_clsp.evaluation.report import read_training_log, write_page
from speechbrain_clsp.utils.html import audio_player, line_chart, table

SHOWN = 8  # examples in the page
WHEN = ("before", "after")


def write_outcome(
    path: Path,
    title: str,
    figures: dict[str, Any],
    before: list[Outcome],
    after: list[Outcome],
    training_log: str,
) -> None:
    """Write a page of :func:`outcome.summarize`'s figures and of some of the clips."""
    sections = [
        f"<h1>{escape(title)}</h1>",
        *_held_out(figures),
        *_measured(figures),
        *(_variety(figures["variety"]) if "variety" in figures else []),
        _training(training_log),
        "<h2>Before and after</h2>",
        *(_example(*pair) for pair in list(zip(before, after))[:SHOWN]),
    ]
    write_page(path, title, sections)


def _held_out(figures: dict[str, Any]) -> list[str]:
    names = [name for name in ("met", "reward", "judged") if name in figures["before"]]
    rows = [[name, *(_cell(figures[when][name]) for when in WHEN)] for name in names]
    for name in figures["before"]["by_attribute"]:
        cells = [_cell(figures[when]["by_attribute"][name]) for when in WHEN]
        rows.append([f"met: {name}", *cells])
    sections = ["<h2>Held-out captions</h2>", table(["", *WHEN], rows)]
    if "hacking_gap" in figures:
        sections.append(
            f"<p>Reward hacking: the reward rose by {_cell(figures['hacking_gap'])} more than"
            " that of a model which was never asked in training.</p>"
        )
    return sections


def _measured(figures: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{name}, {unit}",
            *(_cell(figures[when]["measured"][name], 1) for when in WHEN),
            _cell(figures["change"][name], 1),
        ]
        for name, unit in UNITS.items()
        if name in figures["change"]
    ]
    sections = ["<h2>Measured in the audio</h2><p>Means over clips, whatever was asked for.</p>"]
    sections.append(table(["", *WHEN, "change, clip by clip"], rows))
    if "mel_distance" in figures:
        sections.append(
            f"<p>Filter banks are {_cell(figures['mel_distance'])} nepers from those that the"
            " frozen voice makes of the same pitch and energy.</p>"
        )
    if "frozen_words" in figures:
        sections.append(
            f"<p>Of the frozen voice at that pitch and energy, {_cell(figures['frozen_words'], 1)}"
            " % of words are wrong as well: only the rest is due to the tuning.</p>"
        )
    return sections


def _training(training_log: str) -> str:
    curves = read_training_log(training_log)
    kinds: dict[str, dict] = {}
    for name, points in curves.items():
        split, _, kind = name.partition(" ")  # such as "train reward"
        if kind:
            kinds.setdefault(kind, {})[split] = points
    charts = [line_chart(f"{kind} by epoch", series) for kind, series in kinds.items()]
    return f"<h2>Training</h2><div class='row'>{''.join(charts)}</div>"


def _variety(figures: dict[str, Any]) -> list[str]:
    rows = [["met", *(_cell(figures[when]["met"]) for when in WHEN)]]
    for name, unit in UNITS.items():
        if name in figures["before"]:
            rows.append([f"{name}, {unit}", *(_cell(figures[when][name], 1) for when in WHEN)])
    text = "Settings drawn by chance, and from the policy: the share of clips that meet their"
    text += " caption, and how much those of a caption differ (standard deviations)."
    return [f"<h2>Variety</h2><p>{text}</p>", table(["", *WHEN], rows)]


def _example(before: Outcome, after: Outcome) -> str:
    cells = []
    for when, outcome in (("before", before), ("after", after)):
        said = ", ".join(f"{name} {'yes' if met else 'no'}" for name, met in outcome.met.items())
        heard = ", ".join(f"{value:.0f} {UNITS[name]}" for name, value in outcome.measured.items())
        note = f"<p class='note'>{when}: reward {outcome.reward:.3f}; {said}; {heard}</p>"
        cells.append(player(outcome.wav) + note)
    return f"<h3>{escape(after.request.caption)}</h3>" + "".join(cells)


def player(wav: Tensor) -> str:
    """Return an audio player that holds a clip."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file.name, wav.numpy(), 16000)
        return audio_player(file.name)


def _cell(figure: dict[str, float], digits: int = 3) -> str:
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} - {high})"
