"""The whole line, from files to retrieval, on eight clips that a model must be able to learn."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from small import DEFINITION, tone, write
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_clsp.brain import ContrastiveBrain
from speechbrain_clsp.dataio.captions import TwoCaptions, evaluation_captions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.nnet.schedulers import Eden

PITCHES = {"very low": 80, "low": 130, "high": 220, "very high": 370}
LEVELS = {"quiet": 0.05, "loud": 1.0}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Eight buzzes: four pitches at two levels."""
    rows = []
    for pitch, frequency in PITCHES.items():
        for level, gain in LEVELS.items():
            name = f"{pitch}_{level}".replace(" ", "_")
            write(tmp_path / f"{name}.wav", gain * tone(0.5, frequency=frequency))
            rows.append(
                {
                    "id": name,
                    "audio": f"{name}.wav",
                    "duration": 0.5,
                    "global_captions": [f"A {level} voice of {pitch} pitch."],
                    "fine_captions": [f"It is {pitch} and {level}.", f"It is {level} and {pitch}."],
                }
            )
    write_manifest(tmp_path / "train.arrow", rows)
    return Manifest(tmp_path / "train.arrow")


class Log:
    """Keeps the last statistics."""

    def log_stats(self, meta, *args, **stats):
        """Remember."""
        self.stats = stats


class NoCheckpoints:
    """Stands for a checkpointer that keeps nothing."""

    def add_recoverable(self, *args):
        """Forget."""

    def recover_if_possible(self, *args):
        """Find nothing."""

    def save_and_keep_only(self, *args, **kwargs):
        """Forget."""


def test_eight_clips_are_learnt_by_heart(manifest, tmp_path):
    """If this fails, some part between the audio file and the optimizer step is broken."""
    torch.manual_seed(0)
    model = load_hyperpyyaml(DEFINITION)
    captions = [c for row in manifest for c in row["global_captions"] + row["fine_captions"]]
    train_sentencepiece(captions, tmp_path / "t.model", vocab_size=60)
    model["tokenizer"].load(tmp_path / "t.model")
    hparams = {
        "temperature": model["temperature"],
        "text_weight": 1.0,
        "hard_negative_weight": 1.0,
        "lr_schedule": Eden(lr_batches=1000, lr_epochs=1000, warmup_batches=20),
        "epoch_counter": EpochCounter(limit=60),
        "train_loggers": [Log()],
        "ckpt_metric": "mean_R@1",
        "max_grad_norm": 0,
    }
    brain = ContrastiveBrain(
        model["modules"],
        lambda groups: ScaledAdam(groups, lr=0.04),
        hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
        checkpointer=NoCheckpoints(),
    )
    collate = Collate(model["tokenizer"])
    sampler = BucketBatchSampler(manifest.column("duration"), batch_size=8)
    brain.fit(
        hparams["epoch_counter"],
        CaptionedSpeechDataset(manifest, TwoCaptions()),
        CaptionedSpeechDataset(manifest, evaluation_captions),
        train_loader_kwargs={"batch_sampler": sampler, "collate_fn": collate},
        valid_loader_kwargs={"batch_size": 8, "collate_fn": collate},
    )
    stats = hparams["train_loggers"][0].stats["valid_stats"]
    assert stats["global_R@1"] == 1.0 and stats["fine_R@1"] == 1.0, stats
