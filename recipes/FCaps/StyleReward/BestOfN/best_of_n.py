#!/usr/bin/env python3
"""Best of N: CLSP picks among N candidates; what that gains as N grows is measured in the audio.

> python best_of_n.py hparams/best_of_n.yaml --clsp=/path/to/model
"""

import random
import sys
from math import comb

import numpy as np
import pandas as pd
import torch
from common import start_experiment
from espeak import count_phonemes, draw_text
from judging import JudgedClip, estimate_mean, metrics_frame
from report import Table, write_results
from styles import draw_request
from tqdm import tqdm

METRICS = ("satisfied", "reward", "held_out_reward", "word_error_rate")
N_EXAMPLES = 6


def best_weights(total: int, count: int) -> np.ndarray:
    """Return the chance that the i-th worst of ``total`` is the best of ``count`` drawn from them.

    With it every subset of the candidates counts: the estimate of a smaller N is unbiased.

    Example
    -------
    >>> best_weights(4, 2).round(3).tolist()
    [0.0, 0.167, 0.333, 0.5]
    """
    return np.array([comb(i, count - 1) / comb(total, count) for i in range(total)])


def judge_candidates(hparams: dict) -> list[list[JudgedClip]]:
    """Return the candidates of each held-out caption, in the order of their rewards."""
    generator = random.Random(hparams["seed"])
    rounds = []
    for _ in tqdm(range(hparams["n_captions"]), unit="caption"):
        request = draw_request(generator, True, hparams["max_attributes"])
        text = draw_text(generator)
        clips = hparams["synthesizer"](text, request.caption, hparams["n_candidates"], generator)
        judged = hparams["judges"].judge(request, clips, text, count_phonemes(text))
        rounds.append(sorted(judged, key=lambda clip: clip.metrics["reward"]))
    return rounds


def gains(frames: list[pd.DataFrame], seed: int) -> tuple[Table, Table]:
    """Return the metrics of the picked clip by N, and how often any candidate satisfies.

    ``frames`` have the metrics of each caption's candidates, in the order of their rewards.
    """
    total = len(frames[0])
    by_n = {}
    for count in sorted({n for n in (1, 2, 4, 8, 16, 32, 64) if n < total} | {total}):
        weights = best_weights(total, count)
        by_n[count] = {
            name: estimate_mean([weights @ frame[name] for frame in frames], seed)
            for name in METRICS
            if name in frames[0]
        }
    possible = estimate_mean([frame["satisfied"].max() for frame in frames], seed)
    return by_n, {"any candidate": {"satisfied": possible}}


def main() -> None:
    """Pick, measure, and write metrics.json and report.html."""
    hparams, _ = start_experiment(sys.argv[1:])
    torch.set_num_threads(hparams["num_threads"])
    rounds = judge_candidates(hparams)
    by_n, possible = gains([metrics_frame(clips) for clips in rounds], hparams["seed"])
    write_results(
        hparams["output_folder"],
        "Best of N",
        {"By N": by_n, "Upper bound": possible},
        {name: {"by N": [(n, cells[name].value) for n, cells in by_n.items()]} for name in by_n[1]},
        [
            (clips[0].caption, {"first": clips[-1].wav, "last": clips[0].wav})
            for clips in rounds[:N_EXAMPLES]
        ],
    )


if __name__ == "__main__":
    main()
