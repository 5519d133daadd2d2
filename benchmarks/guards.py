#!/usr/bin/env python3
"""What a style reward does not notice, and which guard does: clips corrupted in known ways.

For each kind of corruption of MiniFCaps' test clips, prints the mean rewards, the fraction that
still beats the clip of another caption, and the fractions that guards let pass.

> python benchmarks/guards.py --model results/mini/model --data data/mini_fcaps/test.arrow
"""

import argparse
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from speechbrain.inference.ASR import EncoderASR
from torch import Tensor

from speechbrain_clsp import CLSP
from speechbrain_clsp.captions.perturbation import AttributeSwap
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
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


def add_clicks(wav: Tensor) -> Tensor:
    """Put an impulse of full scale every tenth of a second."""
    wav = wav.clone()
    wav[:: SAMPLE_RATE // 10] = 1.0
    return wav


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "unchanged": lambda wav: wav,
    "played backwards": lambda wav: wav.flip(0),
    "repeated four times": lambda wav: wav.repeat(4),
    "first 0.2 s only": lambda wav: wav[: SAMPLE_RATE // 5],
    "with three times as much silence": lambda wav: torch.cat([wav, torch.zeros(3 * len(wav))]),
    "100 times as loud": lambda wav: 100 * wav,
    "clipped at a tenth of its peak": lambda wav: wav.clamp(-wav.max() / 10, wav.max() / 10),
    "with clicks": add_clicks,
    "noise of the same level": lambda wav: wav.square().mean().sqrt() * torch.randn(len(wav)),
    "silence": torch.zeros_like,
}


def texts_of(folder: Path) -> dict[str, str]:
    """Return what each clip of a MiniFCaps says, by planning it again."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    sizes = {name: settings[name] for name in settings if name not in ("version", "seed")}
    clips = plan_clips(sizes, settings["seed"])
    return {clip.id: " ".join(part.text for part in clip.parts) for clip in clips}


def open_guards(options: argparse.Namespace) -> dict[str, Callable[..., Tensor]]:
    """Return the guards that the given models allow, by how they are made."""
    guards = {"LengthGuard(0.5, 8)": LengthGuard(0.5, 8.0), "LevelGuard()": LevelGuard()}
    if options.recognizer:
        asr = EncoderASR.from_hparams(options.recognizer, run_opts={"device": "cpu"})
        guards["WordErrorGuard(recognizer, 0.3)"] = WordErrorGuard(asr, 0.3)
    if options.held_out_model:
        guards["AgreementGuard(other, -0.1)"] = AgreementGuard(margin(options.held_out_model), -0.1)
    return guards


def margin(model: str) -> StyleReward:
    """Return a model's margin over captions that are false in one attribute."""
    swap = AttributeSwap(swap_tables())
    return StyleReward(CLSP.from_pretrained(model), scaling="margin", swap=swap)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or Hub repository of a CLSP")
    parser.add_argument("--data", required=True, help="manifest of MiniFCaps")
    parser.add_argument("--held_out_model", help="a second CLSP, for AgreementGuard")
    parser.add_argument("--recognizer", help="for EncoderASR.from_hparams and WordErrorGuard")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    by_margin, guards, read = margin(options.model), open_guards(options), ClipReader()
    by_cosine, said = StyleReward(by_margin.clsp), texts_of(Path(options.data).parent)
    rows = list(islice(Manifest(options.data), options.clips))
    wavs, captions = [read(row) for row in rows], [row["global_captions"][0] for row in rows]
    texts = [said[row["id"]] for row in rows]
    padded, wav_lens = pad([*wavs[1:], wavs[0]])
    other = by_cosine(padded, captions, wav_lens)
    header = ["clip", "cosine", "better", "margin", *(f"`{name}`" for name in guards)]
    print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for name, corrupt in CORRUPTIONS.items():
        padded, wav_lens = pad([corrupt(wav) for wav in wavs])
        cosines, margins = (reward(padded, captions, wav_lens) for reward in (by_cosine, by_margin))
        passed = [guard(padded, wav_lens, captions, texts) for guard in guards.values()]
        cells = [
            f"{cosines.mean():.2f} +- {cosines.std():.2f}",
            f"{(cosines > other).float().mean():.0%}",
            f"{margins.mean():+.2f} +- {margins.std():.2f}",
            *(f"{each.float().mean():.0%}" for each in passed),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
