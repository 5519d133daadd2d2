#!/usr/bin/env python3
"""Best of N: the candidate that CLSP likes best, and what it gains as N grows.

Candidates come from any synthesizer callable; the one given draws espeak-ng's settings by chance.
The gain is measured in the audio (F0, phonemes per second, level, voice), not by the reward alone.

> python best_of_n.py hparams/best_of_n.yaml --clsp=/path/to/model --judge=/path/to/other/model
"""

import json
import random
import sys
from html import escape
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiment import start_experiment
from outcome import Critics, mean_with_interval, open_critics
from page import player
from styles import draw_request, is_met, measure
from tqdm import tqdm
from voices import count_phonemes, draw_text

from speechbrain_clsp.evaluation.report import write_page
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.guards import LevelGuard
from speechbrain_clsp.utils.html import line_chart, table

SHOWN = 6  # examples in the page
NAMES = {
    "met": "share met, measured",
    "reward": "reward",
    "judged": "second model",
    "words": "share of words wrong",
}


def best_weights(total: int, count: int) -> np.ndarray:
    """Return the chance that the i-th worst of ``total`` is the best of ``count`` drawn from them.

    With it, every subset of the candidates counts: the estimate of a smaller N is unbiased.

    Example
    -------
    >>> best_weights(4, 2).round(3).tolist()
    [0.0, 0.167, 0.333, 0.5]
    """
    return np.array([comb(i, count - 1) / comb(total, count) for i in range(total)])


def speak_and_score(hparams: dict, critics: Critics) -> list[dict]:
    """Let candidates of each caption be spoken, rewarded and measured; sorted by reward."""
    draw, rounds = random.Random(hparams["seed"]), []
    for _ in tqdm(range(hparams["n_captions"]), unit="caption"):
        request, text = draw_request(draw, True, hparams["most_attributes"]), draw_text(draw)
        candidates = hparams["synthesizer"](text, request.caption, hparams["n_candidates"], draw)
        wavs, lens = pad([wav for wav, _ in candidates])
        captions, phonemes = [request.caption] * len(candidates), count_phonemes(text)
        texts, found = [text] * len(candidates), {}
        with torch.no_grad():
            for name, model in (("reward", critics.reward), ("judged", critics.judge)):
                if model is not None:
                    found[name] = model(wavs, captions, lens, texts=texts).numpy()
        if critics.recognizer is not None:
            found["words"] = np.array(critics.word_errors(wavs, lens, texts))
        met = [
            all(is_met(request, measure(wav.double().numpy(), phonemes), gender).values())
            for wav, gender in candidates
        ]
        found["met"] = np.array(met, dtype=float)
        order = found["reward"].argsort()
        rounds.append(
            {
                "caption": request.caption,
                **{name: values[order] for name, values in found.items()},
                "worst": candidates[int(order[0])][0],
                "best": candidates[int(order[-1])][0],
            }
        )
    return rounds


def gains(rounds: list[dict], seed: int) -> dict[str, Any]:
    """Return for each N the mean reward and the share of captions met, with intervals."""
    total = len(rounds[0]["reward"])
    counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64) if n < total} | {total})
    figures: dict[str, Any] = {"by_n": {}}
    for count in counts:
        weights = best_weights(total, count)
        figures["by_n"][count] = {
            name: mean_with_interval([float(weights @ one[name]) for one in rounds], seed)
            for name in NAMES
            if name in rounds[0]
        }
    pool = [float(one["met"].any()) for one in rounds]
    return {**figures, "pool_has_one": mean_with_interval(pool, seed), "captions": len(rounds)}


def report(path: Path, figures: dict[str, Any], rounds: list[dict]) -> None:
    """Write a page: gains by N, and clips that were picked and refused."""

    def cell(figure: dict[str, float]) -> str:
        return f"{figure['value']:.3f} ({figure['low']:.3f} - {figure['high']:.3f})"

    names = [name for name in NAMES if name in rounds[0]]
    rows = [
        [str(count), *(cell(found[name]) for name in names)]
        for count, found in figures["by_n"].items()
    ]
    charts = "".join(
        line_chart(
            NAMES[name], {"by N": [(n, f[name]["value"]) for n, f in figures["by_n"].items()]}
        )
        for name in names
    )
    sections = [
        f"<h1>Best of N</h1><p>{figures['captions']} held-out captions. All that a caption asks for"
        f" was measured in some candidate of {cell(figures['pool_has_one'])} of them: no choice can"
        " be better.</p>",
        table(["N", *(NAMES[name] for name in names)], rows),
        f"<div class='row'>{charts}</div><h2>Examples</h2>",
    ]
    for one in rounds[:SHOWN]:
        sections.append(
            f"<h3>{escape(one['caption'])}</h3><p class='note'>picked</p>{player(one['best'])}"
            f"<p class='note'>last</p>{player(one['worst'])}"
        )
    write_page(path, "Best of N", sections)


def main() -> None:
    """Pick, measure and write report.html."""
    hparams, _ = start_experiment(sys.argv[1:])
    rounds = speak_and_score(hparams, open_critics(hparams, [LevelGuard()]))
    figures = gains(rounds, hparams["seed"])
    output = Path(hparams["output_folder"])
    (output / "best_of_n.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    report(output / "report.html", figures, rounds)
    for count, found in figures["by_n"].items():
        print(
            f"N = {count}: {found['met']['value']:.3f} met, reward {found['reward']['value']:.3f}"
        )
    print(f"Clips to listen to are in {output / 'report.html'}")


if __name__ == "__main__":
    main()
