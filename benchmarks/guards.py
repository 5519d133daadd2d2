#!/usr/bin/env python3
"""What a style reward does not notice, and which guard does: clips spoilt in known ways.

True pairs of MiniFCaps test, spoilt; the mean reward of each kind against that of the clips as they
are, the share that still beats the clip of another caption, and the share that guards let pass.

> python benchmarks/guards.py --model results/mini/model --data data/mini_fcaps/test.arrow \
    --judge other/model --recognizer recipes/FCaps/StyleReward/results/recognizer/1986/model
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from speechbrain.inference.ASR import EncoderASR
from speechbrain_clsp.evaluation.models.adapters import ClspAdapter
from torch import Tensor

from speechbrain_clsp.captions.perturbation import AttributeSwap
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.guards import (
    AgreementGuard,
    LengthGuard,
    LevelGuard,
    WordErrorGuard,
)
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.mini_fcaps.corpus import plan_clips
from speechbrain_clsp.mini_fcaps.wording import swap_tables

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


def texts_of(folder: Path) -> dict[str, str]:
    """Return what each clip of a MiniFCaps says, by planning it again."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    sizes = {split: settings[split] for split in ("train", "dev", "test")}
    clips = plan_clips(sizes, settings["seed"])
    return {clip.id: " ".join(part.text for part in clip.parts) for clip in clips}


def open_guards(options: argparse.Namespace) -> dict[str, Callable[..., Tensor]]:
    """Return the guards that the given models allow, by how they are made."""
    guards = {"LengthGuard(0.5, 8)": LengthGuard(0.5, 8.0), "LevelGuard()": LevelGuard()}
    if options.recognizer:
        asr = EncoderASR.from_hparams(options.recognizer, run_opts={"device": "cpu"})
        hear = lambda wavs, lens: asr.transcribe_batch(wavs, lens)[0]  # noqa: E731
        guards["WordErrorGuard(most=0.3)"] = WordErrorGuard(hear, 0.3)
    if options.judge:
        guards["AgreementGuard(least=-0.1)"] = AgreementGuard(margin_of(options.judge), -0.1)
    return guards


def margin_of(model: str) -> StyleReward:
    """Return a model's margin over captions that are false in one attribute."""
    clsp = ClspAdapter(model).clsp
    return StyleReward(clsp, scaling="margin", swap=AttributeSwap(swap_tables()))


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--judge", help="a second model, for AgreementGuard")
    parser.add_argument("--recognizer", help="for SpeechBrain's EncoderASR and WordErrorGuard")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    margin, guards, read = margin_of(options.model), open_guards(options), ClipReader()
    cosine, said = StyleReward(margin.clsp), texts_of(Path(options.data).parent)
    rows = [row for row, _ in zip(Manifest(options.data), range(options.clips))]
    wavs, captions = [read(row) for row in rows], [row["global_captions"][0] for row in rows]
    texts = [said[row["id"]] for row in rows]
    padded, lens = pad([*wavs[1:], wavs[0]])
    other = cosine(padded, captions, lens)
    header = ["clip", "cosine", "better", "margin", *(f"`{name}`" for name in guards)]
    print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for name, spoil in SPOILT.items():
        padded, lens = pad([spoil(wav) for wav in wavs])
        cosines, margins = (reward(padded, captions, lens) for reward in (cosine, margin))
        cells = [
            f"{cosines.mean():.2f} +- {cosines.std():.2f}",
            f"{(cosines > other).float().mean():.0%}",
            f"{margins.mean():+.2f} +- {margins.std():.2f}",
            *(
                f"{guard(padded, lens, captions, texts).float().mean():.0%}"
                for guard in guards.values()
            ),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
