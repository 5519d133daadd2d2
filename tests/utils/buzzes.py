"""Eight buzzes with captions, and a Brain that learns them."""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_clsp.captions.policies import TwoCaptions, evaluation_captions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.nnet.averaging import ModelAverage
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.nnet.schedulers import Eden
from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.loss import CLSPLoss
from tests.utils.small import DEFINITION, tone, write

PITCHES = {"very low": 80, "low": 130, "high": 220, "very high": 370}
LEVELS = {"quiet": 0.05, "loud": 1.0}


def write_buzzes(folder: Path) -> Manifest:
    """Write four pitches at two levels, their manifest and a tokenizer."""
    rows = []
    for pitch, frequency in PITCHES.items():
        for level, gain in LEVELS.items():
            name = f"{pitch}_{level}".replace(" ", "_")
            write(folder / f"{name}.wav", gain * tone(0.5, frequency=frequency))
            rows.append(
                {
                    "id": name,
                    "audio": f"{name}.wav",
                    "duration": 0.5,
                    "global_captions": [f"A {level} voice of {pitch} pitch."],
                    "fine_captions": [f"It is {pitch} and {level}.", f"It is {level} and {pitch}."],
                }
            )
    write_manifest(folder / "train.arrow", rows)
    captions = [c for row in rows for c in row["global_captions"] + row["fine_captions"]]
    train_sentencepiece(captions, folder / "t.model", vocab_size=60)
    return Manifest(folder / "train.arrow")


class Log:
    """Keeps the last statistics."""

    def log_stats(self, meta, *args, **stats):
        """Remember."""
        self.stats = stats


class NoCheckpoints:
    """Stands for a checkpointer that keeps nothing."""

    def add_recoverable(self, *args, **kwargs):
        """Forget."""

    def recover_if_possible(self, *args):
        """Find nothing."""

    def save_and_keep_only(self, *args, **kwargs):
        """Forget."""


def new_brain(
    epochs: int, checkpointer=None, options: dict | None = None, **run_opts
) -> ContrastiveBrain:
    """Return a Brain around a small model with random weights; ``options`` are the Brain's."""
    torch.manual_seed(0)
    model = load_hyperpyyaml(DEFINITION)
    options = {
        "loss": CLSPLoss(text_weight=1.0, hard_negative_weight=1.0),
        "lr_annealing": Eden(lr_batches=1000, lr_epochs=1000, warmup_batches=20),
        "epoch_counter": EpochCounter(limit=epochs),
        "train_loggers": [Log()],
        **(options or {}),
    }
    if checkpointer is not None:
        average = options["model_average"] = ModelAverage(model["modules"], period=2)
        counter = options["epoch_counter"]
        checkpointer.add_recoverables({**model["modules"], "average": average, "counter": counter})
    return ContrastiveBrain(
        model["modules"],
        lambda groups: ScaledAdam(groups, lr=0.04),
        {"tokenizer": model["tokenizer"]},
        {"device": "cpu", "noprogressbar": True, "max_grad_norm": 0, **run_opts},
        checkpointer or NoCheckpoints(),
        **options,
    )


def fit(
    brain: ContrastiveBrain, manifest: Manifest, batch_size: int = 8, captions=None, sampler=None
) -> None:
    """Train for as many epochs as the brain's counter allows."""
    tokenizer = brain.hparams.tokenizer
    tokenizer.load(Path(manifest[0]["audio"]).parent / "t.model")
    collate = Collate(tokenizer)
    sampler = sampler or BucketBatchSampler(manifest.column("duration"), batch_size)
    brain.fit(
        brain.epoch_counter,
        CaptionedSpeechDataset(manifest, captions or TwoCaptions()),
        CaptionedSpeechDataset(manifest, evaluation_captions),
        train_loader_kwargs={"batch_sampler": sampler, "collate_fn": collate},
        valid_loader_kwargs={"batch_size": 8, "collate_fn": collate},
    )
