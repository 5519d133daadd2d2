#!/usr/bin/env python3
"""Whether embeddings tell what is said, or how: a clip's words, and its style, as queries.

DATA is a folder of ``mini_fcaps_prepare``, whose test clips each have words and a style of their
own. Text queries are a clip's words, in three forms, and as a control its caption. Speech queries
are synthesized anew: the words of one test clip in the style of another one; is it the former that
is found, or the latter? R@1 among all test clips in %, with the 95 % interval (Wilson's)
and chance.

> python benchmarks/words.py --model results/mini/model --data data/mini_fcaps
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import binomtest
from torch import Tensor

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.retrieval.metrics import query_values
from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
from speechbrain_clsp.evaluation.statistics import Estimate
from speechbrain_clsp.mini_fcaps.corpus import PlannedClip, plan_clips, render
from speechbrain_clsp.utils.reading import read_json

FORMS = ("{}", 'A speaker says "{}".', "The words are: {}.")


def main() -> None:
    """Measure, and print a row per query."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="results/mini/model")
    parser.add_argument("--data", type=Path, default=Path("data/mini_fcaps"))
    options = parser.parse_args()
    clsp = CLSP.from_pretrained(options.model)
    rows = list(Manifest(options.data / "test.arrow"))
    clips = plan_test_clips(options.data, rows)
    speech = clsp.encode_files([row["audio"] for row in rows], progress=False)
    for query, vectors, wanted in queries(clsp, rows, clips):
        found = recall(vectors, speech, wanted)
        print(f"{query:44} {found.format(percent=True):18} chance {100 * found.chance:.2f}")


def plan_test_clips(data: Path, rows: list[dict]) -> list[PlannedClip]:
    """Return what the test clips were made from, which a manifest does not tell."""
    settings = read_json(data / "settings.json")
    clips = plan_clips({"test": settings["test"], "valid": 0, "train": 0}, settings["seed"])
    assert [(clip.id, clip.voice) for clip in clips] == [(r["id"], r["speaker"]) for r in rows]
    return clips


def queries(
    clsp: CLSP, rows: list[dict], clips: list[PlannedClip]
) -> Iterator[tuple[str, Tensor, list[int]]]:
    """Yield queries with a name, their embeddings [N, D], and the number of the wanted clips."""
    own = list(range(len(clips)))
    words = [" ".join(clip.script.phrases) for clip in clips]
    for form in FORMS:
        yield (
            f"text, {form.format('WORDS')}",
            clsp.encode_text([form.format(w) for w in words]),
            own,
        )
    captions = [row["fine_captions"][-1] for row in rows]
    yield "text, the caption of the style", clsp.encode_text(captions), own
    others = [(number + 1) % len(clips) for number in own]
    crossed = clsp.encode_files(
        [
            {"array": render(cross(clips[number], clips[other])), "sampling_rate": SAMPLE_RATE}
            for number, other in zip(own, others)
        ],
        progress=False,
    )
    yield "speech, its words in another clip's style", crossed, own
    yield "speech, its style with another clip's words", crossed, others


def cross(words: PlannedClip, style: PlannedClip) -> PlannedClip:
    """Return a clip with the words of one and all else of another."""
    return replace(style, script=replace(style.script, phrases=words.script.phrases))


def recall(queries: Tensor, speech: Tensor, wanted: list[int]) -> Estimate:
    """Return R@1 of queries [N, D] among clips [M, D]."""
    pairs = torch.tensor(list(enumerate(wanted)))
    values = query_values(rank_pairs(queries, speech, pairs))["R@1"]
    found = binomtest(int(values.sum()), len(values))  # a bootstrap of no hit at all has no width
    low, high = found.proportion_ci(method="wilson")
    return Estimate(found.statistic, float(low), float(high), 1 / len(speech))


if __name__ == "__main__":
    main()
