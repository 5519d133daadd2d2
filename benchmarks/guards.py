#!/usr/bin/env python3
"""What a style reward does not notice, and which guard does: clips spoilt in known ways.

True pairs of MiniFCaps test, spoilt; the mean reward of each kind against that of the clips as they
are, the share that still beats the clip of another caption, and the share that guards let pass.

> python benchmarks/guards.py --model results/mini/model --data data/mini_fcaps/test.arrow

Authors
 * The speechbrain-clsp authors 2026
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.perturbation import AttributeSwap
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.evaluation.adapters import ClspAdapter
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.mini_fcaps.captions import swap_tables

RATE = 16000


def clicks(wav: Tensor) -> Tensor:
    """Put an impulse of full scale every tenth of a second."""
    spoilt = wav.clone()
    spoilt[:: RATE // 10] = 1.0
    return spoilt


SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda wav: wav,
    "said backwards": lambda wav: wav.flip(0),
    "said four times": lambda wav: wav.repeat(4),
    "first 0.2 s only": lambda wav: wav[: RATE // 5],
    "with three times as much silence": lambda wav: torch.cat([wav, torch.zeros(3 * len(wav))]),
    "100 times as loud": lambda wav: 100 * wav,
    "clipped at a tenth of its peak": lambda wav: wav.clamp(-wav.max() / 10, wav.max() / 10),
    "with clicks": clicks,
    "noise of the same level": lambda wav: wav.square().mean().sqrt() * torch.randn(len(wav)),
    "silence": torch.zeros_like,
}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clsp, read = ClspAdapter(options.model).clsp, ClipReader()
    cosine = StyleReward(clsp)
    margin = StyleReward(clsp, scaling="margin", swap=AttributeSwap(swap_tables()))
    guards = {"length": LengthGuard(0.5, 8.0), "level": LevelGuard()}
    rows = [row for row, _ in zip(Manifest(options.data), range(options.clips))]
    wavs, captions = [read(row) for row in rows], [row["global_captions"][0] for row in rows]
    other = cosine(*_joined([*wavs[1:], wavs[0]], captions))
    print("| clip | cosine | better than another's clip | margin | passes length | passes level |")
    print("|---|---|---|---|---|---|")
    for name, spoil in SPOILT.items():
        padded, captions, lens = _joined([spoil(wav) for wav in wavs], captions)
        cosines, margins = (reward(padded, captions, lens) for reward in (cosine, margin))
        passes = [float(g(padded, lens, captions, None).float().mean()) for g in guards.values()]
        cells = [
            f"{cosines.mean():.2f} +- {cosines.std():.2f}",
            f"{(cosines > other).float().mean():.0%}",
        ]
        cells += [f"{margins.mean():+.2f} +- {margins.std():.2f}", *(f"{p:.0%}" for p in passes)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _joined(wavs: list[Tensor], captions: list[str]) -> tuple[Tensor, list[str], Tensor]:
    padded, lens = pad(wavs)
    return padded, captions, lens


if __name__ == "__main__":
    main()
