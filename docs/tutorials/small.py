"""A small corpus and a small CLSP for the tutorials: made once, in a minute of one core.

They are kept in ``docs/_build/tutorials``, or where ``CLSP_TUTORIALS`` says; remove that folder to
make them anew.
"""

import contextlib
import io
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio import Manifest, read_audio
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.nnet import ScaledAdam, contrastive_loss
from speechbrain_clsp.pretrained import save_model_folder

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("CLSP_TUTORIALS", HERE.parent / "_build" / "tutorials"))
WORDS = {
    "voice": {
        "male": ["A man", "A male speaker"],
        "female": ["A woman", "A female speaker"],
        "whisper": ["A whispering speaker"],
        "croak": ["A croaking speaker"],
    },
    "rate": {
        "slow speed": ["slowly", "at a slow pace"],
        "measured speed": ["at a measured pace"],
        "fast speed": ["quickly", "at a fast pace"],
    },
    "pitch": {
        "low-pitched": ["in a low voice", "in a deep voice"],
        "medium-pitched": ["in a medium-pitched voice"],
        "high-pitched": ["in a high voice", "in a high-pitched voice"],
    },
    "loudness": {
        "quiet": ["quietly", "softly"],
        "moderate": ["at a normal volume"],
        "loud": ["loudly"],
    },
}


def make_corpus() -> Path:
    """Make a MiniFCaps of 480 training clips; returns its folder."""
    sys.path.append(str(HERE.parents[1] / "recipes" / "FCaps"))
    from mini_fcaps_prepare import prepare_mini_fcaps

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        prepare_mini_fcaps(FOLDER / "data", n_train=480, n_valid=60, n_test=60, n_jobs=1)
    return FOLDER / "data"


def values_of(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the value of each attribute of a clip; None where it changes or is not audible."""
    labels = row["labels"]
    return {
        "voice": labels["voice"],
        "rate": row["speaking_rate"],
        "pitch": row["pitch"],
        "loudness": labels.get("loudness"),
    }


def caption(row: Mapping[str, Any], generator: random.Random | None = None) -> str:
    """Return a plain caption of a clip, of all or, with a generator, of some attributes."""
    told = {name: value for name, value in values_of(row).items() if value}
    if generator:
        told = {name: value for name, value in told.items() if generator.random() < 0.75}
    words = {
        name: generator.choice(WORDS[name][value]) if generator else WORDS[name][value][0]
        for name, value in told.items()
    }
    who = words.pop("voice", "A person")
    return f"{who} speaks {', '.join(words.values())}".rstrip() + "."


def prompts(name: str) -> dict[str, list[str]]:
    """Return short texts for each value of an attribute."""
    if name == "voice":
        return {value: [f"{who} speaks." for who in told] for value, told in WORDS[name].items()}
    return {
        value: [f"A person speaks {how}." for how in told] for value, told in WORDS[name].items()
    }


def load(rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Return the waveforms [B, T] of some clips, zero padded, and their relative lengths [B]."""
    wavs = [read_audio(row["audio"]) for row in rows]
    n_samples = torch.tensor([len(wav) for wav in wavs])
    return pad_sequence(wavs, batch_first=True), n_samples / n_samples.max()


def train(manifest: Manifest, folder: Path, steps: int = 300, batch_size: int = 24) -> list[float]:
    """Train the model of ``small.yaml``; returns the loss of every step.

    The loss is that between clips and captions, and that of each attribute by its prompts.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    generator = random.Random(0)
    rows = [row for row in manifest if row["duration"] < 2.6]
    definition = (HERE / "small.yaml").read_text(encoding="utf-8")
    model = load_hyperpyyaml(definition)
    texts = [text for name in WORDS for told in prompts(name).values() for text in told]
    texts += [caption(row, generator) for row in rows for _ in range(4)]
    folder.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(texts, folder / "tokenizer.model", vocab_size=200)
    model["tokenizer"].load(folder / "tokenizer.model")
    speech_tower, text_tower, scale = (model["modules"][name] for name in model["modules"])
    parameters = [p for module in model["modules"].values() for p in module.parameters()]
    optimizer = ScaledAdam(parameters, lr=0.05, clipping_scale=2.0)
    losses = []
    for step in range(steps):
        rate = min((step + 1) / 20, 1.0, 2.5 * (1 - step / steps))
        optimizer.param_groups[0]["lr"] = 0.05 * rate
        chosen = generator.sample(rows, batch_size)
        speech = speech_tower(*load(chosen))
        captions = [caption(row, generator) for row in chosen]
        text = text_tower(*model["tokenizer"](captions))
        ids = torch.tensor([[captions.index(one) for one in captions]])
        loss = contrastive_loss(speech, text[None], scale(), caption_ids=ids)
        for name in WORDS:
            words = {value: generator.choice(told) for value, told in prompts(name).items()}
            classes = text_tower(*model["tokenizer"](list(words.values())))
            values = [values_of(row)[name] for row in chosen]
            target = torch.tensor([list(words).index(one) if one else -100 for one in values])
            loss = loss + cross_entropy(scale() * speech @ classes.T, target, ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tokenizer = {"tokenizer.model": folder / "tokenizer.model"}
    save_model_folder(folder / "model", definition, model["modules"], tokenizer)
    return losses


def small_model() -> tuple[CLSP, Path, list[float]]:
    """Return the model, the folder of the corpus and the losses; make what is not there yet."""
    data, curve = make_corpus(), FOLDER / "losses.json"
    if not curve.is_file():
        losses = train(Manifest(data / "train.arrow"), FOLDER)
        curve.write_text(json.dumps(losses), encoding="utf-8")
    losses = json.loads(curve.read_text(encoding="utf-8"))
    return CLSP.from_pretrained(str(FOLDER / "model")), data, losses
