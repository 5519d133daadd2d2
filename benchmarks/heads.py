#!/usr/bin/env python3
"""What the attribute heads of a training read from clips, and what from captions.

RESULTS is the output folder of mini.yaml, DATA its data folder. The heads, which are linear,
classify the test clips, and their last fine captions. Then, of two clips that differ in one thing,
which one is a caption's (the clips' side of the probes)? It is told by the cosine; by the heads,
whether they find more of what is true of the one clip in it than in the other one; and likewise in
the caption than in those of the other clip.

> python benchmarks/heads.py --results results/mini --data data/mini_fcaps
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from torch import Tensor

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.probes.pairs import read_pairs
from speechbrain_clsp.lobes.attribute_heads import UNLABELED, AttributeHeads

KINDS = ("order", "place", "binding")
CHECKPOINT = "save/CKPT*/attribute_heads.ckpt"


class Reader:
    """A training's heads, as classifiers.

    Arguments
    ---------
    results : Path
        Output folder of the training.
    """

    def __init__(self, results: Path) -> None:
        settings = YAML().load(results / "hyperparams.yaml")  # tags are kept, not run
        self.labels = AttributeLabels(settings["attribute_values"])
        checkpoint = max(results.glob(CHECKPOINT), key=lambda path: path.parent.name)
        weights = torch.load(checkpoint, weights_only=True)
        self.heads = AttributeHeads(weights["heads.0.weight"].shape[1], self.labels.values)
        self.heads.load_state_dict(weights)
        self.heads.requires_grad_(False)

    def accuracies(self, embeddings: Tensor, rows: list[dict]) -> list[tuple[float, int]]:
        """Return the accuracy of each attribute, and of how many rows."""
        classes = torch.tensor([self.labels(row) for row in rows]).unbind(dim=1)
        found = []
        for logits, wanted in zip(self.heads.logits(embeddings), classes, strict=True):
            known = wanted != UNLABELED
            right = logits.argmax(dim=1)[known] == wanted[known]
            found.append((float(right.double().mean()), int(known.sum())))
        return found

    def margins(self, embeddings: Tensor, one: dict, other: dict) -> Tensor:
        """Return [N]: how much more embeddings have of a row's labels than of another row's."""
        total = torch.zeros(len(embeddings))
        of_each = self.heads.logits(embeddings)
        for logits, label, other_label in zip(
            of_each, self.labels(one), self.labels(other), strict=True
        ):
            if label != other_label and UNLABELED not in (label, other_label):
                total += logits[:, label] - logits[:, other_label]
        return total


def print_accuracies(clsp: CLSP, reader: Reader, data: Path) -> None:
    """Print a row per attribute."""
    rows = list(Manifest(data / "test.arrow"))
    speech = clsp.encode_files([row["audio"] for row in rows], progress=False)
    text = clsp.encode_text([row["fine_captions"][-1] for row in rows])
    print("| test set, right by heads [%] | clips | fine captions | N |\n|---|---|---|---|")
    both = (reader.accuracies(x, rows) for x in (speech, text))
    for name, (of_speech, number), (of_text, _) in zip(reader.labels.values, *both, strict=True):
        print(f"| {name} | {100 * of_speech:.1f} | {100 * of_text:.1f} | {number} |")


def print_pairs(clsp: CLSP, reader: Reader, data: Path) -> None:
    """Print a row per kind of pair of clips."""
    rows = {row["id"]: row for row in Manifest(data / "probes.arrow")}
    everything = read_pairs(data / "pairs.jsonl", rows)
    pairs = [pair for pair in everything if pair.side == "clips" and pair.kind in KINDS]
    ids = sorted({clip for pair in pairs for clip in (pair.true, pair.false)})
    embeddings = clsp.encode_files([rows[clip]["audio"] for clip in ids], progress=False)
    speech = dict(zip(ids, embeddings, strict=True))
    counts: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for pair in pairs:
        captions = clsp.encode_text([pair.anchor, *rows[pair.false]["fine_captions"]])
        clips = torch.stack([speech[pair.true], speech[pair.false]])
        right = judge(clips, captions, rows[pair.true], rows[pair.false], reader)
        counts[f"{pair.kind}: {pair.attribute}"].append(right)
    print("\n| two clips, right [%] | by cosine | heads, clips | heads, captions | N |")
    print("|---|---|---|---|---|")
    for name, found in sorted(counts.items()):
        cells = (f"{100 * sum(column) / len(found):.1f}" for column in zip(*found, strict=True))
        print(f"| {name} | {' | '.join(cells)} | {len(found)} |")


def judge(
    clips: Tensor, captions: Tensor, one: dict[str, Any], other: dict[str, Any], reader: Reader
) -> tuple[bool, bool, bool]:
    """Return whether cosine, heads on clips, and heads on captions tell two clips apart.

    ``clips`` is [2, D], of the caption's own and the other; ``captions`` [1 + N, D], the caption
    and those of the other clip.
    """
    of_own, of_other = (clips @ captions[0]).tolist()
    heard = reader.margins(clips, one, other)
    read = reader.margins(captions, one, other)
    return of_own > of_other, bool(heard[0] > heard[1]), bool(read[0] > read[1:].mean())


def check_files(results: Path, data: Path) -> None:
    """End with a message if a file is not there."""
    needed = [results / "model", results / "hyperparams.yaml"]
    needed += [data / name for name in ("test.arrow", "probes.arrow", "pairs.jsonl")]
    for path in needed:
        if not path.exists():
            raise SystemExit(f"{path} is not there: give the folders of a finished mini.yaml")
    if not list(results.glob(CHECKPOINT)):
        raise SystemExit(f"{results} has no {CHECKPOINT}: it was trained without attribute heads")


def main() -> None:
    """Read the heads, embed, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/mini"))
    parser.add_argument("--data", type=Path, default=Path("data/mini_fcaps"))
    options = parser.parse_args()
    check_files(options.results, options.data)
    clsp = CLSP.from_pretrained(options.results / "model")
    reader = Reader(options.results)
    print_accuracies(clsp, reader, options.data)
    print_pairs(clsp, reader, options.data)


if __name__ == "__main__":
    main()
