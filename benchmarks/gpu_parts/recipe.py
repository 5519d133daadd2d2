"""The stage-2 recipe as its user runs it, on noise with made-up captions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain import Stage
from tokenizers import ByteLevelBPETokenizer

from gpu_parts.models import SMALL, SMALL_ROBERTA
from gpu_parts.setting import Setting
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions
from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.recipe import dataio_prepare, make_brain

RECIPE = Path(__file__).resolve().parents[2] / "recipes/FCaps/CLSP"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PARTS = [
    "The speaker is {} and talks {} with {} pitch.",
    "The voice has a {} timbre, a {} rhythm and {} articulation.",
    "Towards the end the delivery becomes {}, more {} and rather {}.",
    "Pauses are {}, stress falls {} and the volume stays {}.",
]
WORDS = "calm quick slow warm bright deep soft loud even clear hoarse lively flat tense".split()


def caption(draw: random.Random, sentences: int) -> str:
    """Return a caption of so many sentences."""
    return " ".join(
        PARTS[i % len(PARTS)].format(*draw.choices(WORDS, k=3)) for i in range(sentences)
    )


def write_data(setting: Setting, folder: Path, seconds: float) -> Path:
    """Write noise of 2 to 12 s per clip, a manifest and a tokenizer; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, chance = random.Random(0), np.random.default_rng(0)
    shortest, longest = setting.pick((2.0, 12.0), (0.3, 0.6))
    rows, total = [], 0.0
    while total < seconds:
        size = int(draw.uniform(shortest, longest) * SAMPLE_RATE)
        name = f"{len(rows)}.wav"
        wav = (0.1 * chance.standard_normal(size)).astype(np.float32)
        soundfile.write(folder / name, wav, SAMPLE_RATE)
        duration = size / SAMPLE_RATE
        texts = {
            "global_captions": [caption(draw, 1)],
            "fine_captions": [caption(draw, 5) for _ in range(2)],
        }
        rows.append({"id": str(len(rows)), "audio": name, "duration": duration, **texts})
        total += duration
    write_manifest(folder / "data.arrow", rows)
    write_tokenizer(folder, [text for row in rows for text in row["fine_captions"]])
    return folder / "data.arrow"


def write_tokenizer(folder: Path, captions: list[str]) -> Path:
    """Train a small byte-level BPE in RoBERTa's form; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(captions, vocab_size=1000, special_tokens=SPECIAL, show_progress=False)
    bpe.save_model(str(folder))
    FastTokenizerCaptions(folder).save(folder / "tokenizer.json")
    return folder / "tokenizer.json"


def hparams_for(setting: Setting, manifest: Path, output: Path, **more: Any) -> dict:
    """Load ``train_stage2.yaml`` with the overrides that a user would give."""
    overrides = {
        "output_folder": str(output),
        **{f"{split}_manifest": str(manifest) for split in ("train", "valid", "test")},
        "tokenizer_file": str(manifest.parent / "tokenizer.json"),
        "stage1_folder": "none",
        "shortest": 0.0,
        "step_log": {"stall_seconds": None, "every": 1},
        **more,
    }
    if setting.small:
        overrides["model"] = {"encoder": SMALL, "text_tower": SMALL_ROBERTA}
        overrides["train_dataloader_opts"] = {"num_workers": 0, "pin_memory": False}
    output.mkdir(parents=True, exist_ok=True)
    with open(RECIPE / "hparams/train_stage2.yaml", encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, json.dumps(overrides))
    hparams["model"]["tokenizer"].load(hparams["tokenizer_file"])
    return hparams


def brain_for(setting: Setting, hparams: dict, **run_opts: Any) -> ContrastiveBrain:
    """Return the recipe's Brain, ready for the first step, or where its checkpoint was."""
    device = str(setting.device) if setting.device.type == "cpu" else "cuda:0"
    brain = make_brain(
        hparams, {"device": device, "noprogressbar": True, **run_opts}, train_loggers=[]
    )
    brain.epoch_counter.current = 1
    brain.on_fit_start()
    brain.modules.train()
    brain.on_stage_start(Stage.TRAIN, 1)
    return brain


def batches_for(hparams: dict, number: int) -> list[CaptionedSpeech]:
    """Return the first batches of the recipe's own loader."""
    datasets, loader_kwargs = dataio_prepare(hparams)
    loader = iter(torch.utils.data.DataLoader(datasets["train"], **loader_kwargs["train"]))
    return [next(loader) for _ in range(number)]


def take_step(brain: ContrastiveBrain, batch: CaptionedSpeech) -> float:
    """Do one step as SpeechBrain's loop does; returns the loss."""
    brain.step += 1
    return float(brain.fit_batch(batch))
