#!/usr/bin/env python3
"""How far a model understands recordings of people: gender, pitch, rate and loudness.

FOLDER holds recordings and ``table.csv`` with the columns ``file`` and ``gender`` (male or female).
Gender is told by zero-shot prompts. For the others no labels are needed: Spearman's rank
correlation between what is measured in the audio and how much nearer a clip is to the prompts of
the highest level than to those of the lowest.

> python benchmarks/real_voices.py results/mini/model FOLDER --output real_voices.json
"""

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_recall, percentiles
from speechbrain_clsp.evaluation.zero_shot import Task, read_tasks
from speechbrain_clsp.mini_fcaps.acoustics import AcousticMeasurement, measure_acoustics

GENDERS = ("male", "female")
WORDINGS = {  # besides those of the zero-shot task
    "male": ["This is a man.", "A man speaks.", "The voice is male."],
    "female": ["This is a woman.", "A woman speaks.", "The voice is female."],
}
MEASURED: dict[str, Callable[[AcousticMeasurement], float]] = {  # by zero-shot task
    "pitch": lambda found: found.hertz,
    "speaking rate": lambda found: found.nuclei_per_second,
    "loudness": lambda found: found.decibels,
}
N_RESAMPLES = 1000


def gender_recall(cosines: np.ndarray, labels: np.ndarray) -> Estimate:
    """Return the unweighted average recall by [N, 2] cosines, where labels are 0 and 1."""
    predicted = cosines.argmax(axis=1)
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    low, high = bootstrap_recall(predicted, labels)
    return Estimate(float(np.mean(recalls)), low, high, chance=0.5)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Return Spearman's correlation of two [N] arrays, with its bootstrap interval."""
    generator = np.random.default_rng(0)
    draws = generator.integers(len(one), size=(N_RESAMPLES, len(one)))
    low, high = percentiles(np.array([spearmanr(one[ids], other[ids])[0] for ids in draws]))
    return Estimate(float(spearmanr(one, other)[0]), low, high, chance=0.0)


def margins(speech: Tensor, task: Task, clsp: CLSP) -> np.ndarray:
    """Return the mean cosine with the prompts of the last class minus that of the first, [N]."""
    lowest, *_, highest = (speech @ prompts.T for prompts in task.embed(clsp.encode_text))
    return (highest.mean(dim=1) - lowest.mean(dim=1)).numpy()


def evaluate(clsp: CLSP, folder: Path) -> dict[str, Estimate]:
    """Return all results by name."""
    with open(folder / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [folder / row["file"] for row in rows]
    labels = np.array([GENDERS.index(row["gender"]) for row in rows])
    speech = clsp.encode_files(paths, progress=False)
    found = [measure_acoustics(read_audio(path).numpy()) for path in paths]
    tasks = {task.name: task for task in read_tasks("mini")}
    results = {}
    for name, prompts in {"gender": tasks["gender"].prompts, "gender, reworded": WORDINGS}.items():
        embedded = Task(name, "gender", prompts).embed(clsp.encode_text)
        cosines = np.stack([(speech @ each.T).mean(dim=1).numpy() for each in embedded], axis=1)
        results[name] = gender_recall(cosines, labels)
    for name, measure in MEASURED.items():
        values = np.array([measure(each) for each in found])
        groups = {name: np.isfinite(values)}
        if name == "pitch":
            for label, gender in enumerate(GENDERS):
                groups[f"pitch, {gender}"] = groups["pitch"] & (labels == label)
        margin = margins(speech, tasks[name], clsp)
        for group, chosen in groups.items():
            results[group] = rank_correlation(margin[chosen], values[chosen])
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("folder", type=Path, help="of recordings, with table.csv")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    results = evaluate(CLSP.from_pretrained(options.model), options.folder)
    for name, estimate in results.items():
        print(f"{name:17s}", estimate.format())
    if options.output:
        written = {name: estimate.to_dict() for name, estimate in results.items()}
        options.output.write_text(json.dumps(written, indent=1), encoding="utf-8")
