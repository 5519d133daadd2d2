"""What came of a request: audio, rewards, and what was measured; figures and a page of them.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from styles import UNITS, StyleRequest, contrast_swap, is_met, measure
from torch import Tensor

from speechbrain_clsp.evaluation.adapters import ClspAdapter
from speechbrain_clsp.evaluation.figures import audio_player, line_chart, table
from speechbrain_clsp.evaluation.intervals import bootstrap_mean
from speechbrain_clsp.evaluation.report import read_training_log, write_page
from speechbrain_clsp.inference.reward import StyleReward

SHOWN = 8  # examples in the page


def open_rewards(
    hparams: Mapping[str, Any],
    guards: Sequence[Callable[..., Tensor]],
) -> tuple[StyleReward, StyleReward | None]:
    """Return the reward of ``clsp``, with guards, and of ``judge`` if there is one."""
    options = {"scaling": hparams["scaling"], "n_contrasts": hparams["n_contrasts"]}
    options["swap"] = contrast_swap()
    reward = StyleReward(ClspAdapter(hparams["clsp"]).clsp, guards=guards, **options)
    if hparams["judge"] is None:
        return reward, None
    return reward, StyleReward(ClspAdapter(hparams["judge"]).clsp, **options)


@dataclass
class Outcome:
    """A request that was spoken.

    Arguments
    ---------
    request : StyleRequest
        What was asked for.
    wav : Tensor
        [T].
    reward : float
        Of the model that rewards.
    judged : float or None
        Of the second one.
    met : dict
        Whether each asked attribute was measured in the audio.
    measured : dict
        What was measured; see ``styles.UNITS``.
    """

    request: StyleRequest
    wav: Tensor
    reward: float
    judged: float | None
    met: dict[str, bool]
    measured: dict[str, float]

    @property
    def is_met(self) -> bool:
        """Whether all asked attributes are there."""
        return all(self.met.values())


def outcome_of(
    request: StyleRequest,
    wav: Tensor,
    gender: str,
    phonemes: int,
    reward: Callable[..., Tensor],
    judge: Callable[..., Tensor] | None = None,
) -> Outcome:
    """Reward and measure a clip that should be as requested.

    Arguments
    ---------
    request : StyleRequest
        What was asked for.
    wav : Tensor
        [T] at 16 kHz.
    gender : str
        That of the voice.
    phonemes : int
        How many are spoken.
    reward, judge : StyleReward
        The model that rewards, and another one if there is one.
    """
    with torch.no_grad():
        rewards = [
            None if model is None else float(model(wav[None], [request.caption]))
            for model in (reward, judge)
        ]
    measured = measure(wav.double().numpy(), phonemes)
    return Outcome(request, wav, *rewards, is_met(request, measured, gender), measured)


def mean_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return a mean with its 95 % bootstrap interval; what is NaN is left out."""
    values = np.array(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    low, high = bootstrap_mean(values, seed)
    return {"value": float(values.mean()), "low": low, "high": high}


def summarise(before: list[Outcome], after: list[Outcome], seed: int) -> dict[str, Any]:
    """Return shares of requests that were met, and rewards, before and after.

    ``hacking_gap`` is by how much more the reward rose than the second model's, both in units of
    their standard deviation before: 0 if both like the change equally.
    """
    figures: dict[str, Any] = {}
    for name, outcomes in (("before", before), ("after", after)):
        found = figures[name] = {
            "met": mean_with_interval([outcome.is_met for outcome in outcomes], seed),
            "reward": mean_with_interval([outcome.reward for outcome in outcomes], seed),
        }
        if outcomes[0].judged is not None:
            found["judged"] = mean_with_interval([outcome.judged for outcome in outcomes], seed)
        attributes = sorted({name for outcome in outcomes for name in outcome.met})
        found["by_attribute"] = {
            attribute: mean_with_interval(
                [o.met[attribute] for o in outcomes if attribute in o.met]
            )
            for attribute in attributes
        }
        found["measured"] = {
            name: mean_with_interval([o.measured[name] for o in outcomes], seed) for name in UNITS
        }
    figures["change"] = {
        name: mean_with_interval(
            [then.measured[name] - first.measured[name] for first, then in zip(before, after)], seed
        )
        for name in UNITS
    }
    if before[0].judged is not None:
        rises = []
        for kind in ("reward", "judged"):
            first, then = ([getattr(o, kind) for o in some] for some in (before, after))
            rises.append((np.array(then) - first) / np.std(first))
        figures["hacking_gap"] = mean_with_interval(rises[0] - rises[1], seed)
    return figures


def write_outcome(
    path: Path,
    title: str,
    figures: dict[str, Any],
    before: list[Outcome],
    after: list[Outcome],
    training_log: str,
) -> None:
    """Write a page: figures, curves of the training, and clips before and after."""
    header = ["", "before", "after"]
    names = [name for name in ("met", "reward", "judged") if name in figures["before"]]
    rows = [[name, *(_cell(figures[when][name]) for when in ("before", "after"))] for name in names]
    for name in figures["before"]["by_attribute"]:
        cells = [_cell(figures[when]["by_attribute"][name]) for when in ("before", "after")]
        rows.append([f"met: {name}", *cells])
    measured = [
        [
            f"{name}, {unit}",
            *(_cell(figures[when]["measured"][name], 1) for when in ("before", "after")),
            _cell(figures["change"][name], 1),
        ]
        for name, unit in UNITS.items()
    ]
    sections = [f"<h1>{escape(title)}</h1>", "<h2>Held-out captions</h2>", table(header, rows)]
    sections += [
        "<h2>Measured in the audio</h2><p>Means over clips, of all that was asked for.</p>"
    ]
    sections += [table([*header, "change, clip by clip"], measured)]
    if "mel_distance" in figures:
        sections.append(
            f"<p>Filter banks are {_cell(figures['mel_distance'])} nepers from those that the"
            " frozen voice makes of the same pitch and energy.</p>"
        )
    if "hacking_gap" in figures:
        sections.append(
            f"<p>Reward hacking: the reward rose by {_cell(figures['hacking_gap'])} standard"
            " deviations more than that of a model which was never asked in training.</p>"
        )
    curves = read_training_log(training_log)
    charts = [line_chart(name, {name: points}) for name, points in curves.items() if points]
    sections.append(f"<h2>Training</h2><div class='charts'>{''.join(charts)}</div>")
    sections.append("<h2>Before and after</h2>")
    sections += [_example(*pair) for pair in list(zip(before, after))[:SHOWN]]
    write_page(path, title, sections)


def _example(before: Outcome, after: Outcome) -> str:
    cells = []
    for when, outcome in (("before", before), ("after", after)):
        said = ", ".join(f"{name} {'yes' if met else 'no'}" for name, met in outcome.met.items())
        heard = ", ".join(f"{outcome.measured[name]:.0f} {unit}" for name, unit in UNITS.items())
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
