#!/usr/bin/env python3
"""Recipe for a small recognizer of what these recipes speak, to count word errors with.

Its ``model`` folder opens with SpeechBrain's ``EncoderASR.from_hparams``. It knows the words of
MiniFCaps only, spoken by espeak-ng.

> python train_recognizer.py hparams/recognizer.yaml
"""

import random
import shutil
import string
import sys
from pathlib import Path

import speechbrain as sb
import torch
from experiment import AveragingBrain, start_experiment
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.nnet.losses import ctc_loss
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.metric_stats import ErrorRateStats
from torch.utils.data import Dataset
from voices import draw_action, draw_text, speak

from speechbrain_clsp.mini_fcaps.style import ACCENTS

MODEL_FILE = Path(__file__).parent / "models/recognizer.yaml"


class Speech(Dataset):
    """Sentences with accents and settings by chance, spoken when asked for.

    Arguments
    ---------
    count : int
        Clips.
    encoder : CTCTextEncoder
        Of characters.
    seed : str
        The same seed gives the same clips; training takes others in each ``epoch``.
    """

    def __init__(self, count: int, encoder: CTCTextEncoder, seed: str) -> None:
        self.count, self.encoder, self.seed, self.epoch = count, encoder, seed, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        draw = random.Random(f"{self.seed} {self.epoch} {index}")
        text = draw_text(draw)
        return {
            "id": f"{self.epoch}_{index}",
            "text": text,
            "wav": speak(text, draw_action(draw), draw.choice(list(ACCENTS))),
            "characters": self.encoder.encode_sequence_torch(list(text.lower())),
        }


class RecognizerBrain(AveragingBrain):
    """Connectionist temporal classification of characters."""

    def compute_forward(self, batch, stage):
        """Return log-probabilities [B, F, n_labels]."""
        batch = batch.to(self.device)
        return self.modules.encoder(*batch.wav)

    def compute_objectives(self, log_probs, batch, stage):
        """Return the loss; count word errors in validation."""
        lengths = batch.wav.lengths
        if stage != sb.Stage.TRAIN:
            decoded = self.hparams.model["decoding_function"](log_probs, lengths)
            encoder = self.hparams.model["tokenizer"]
            heard = ["".join(encoder.decode_ndim(one)).split() for one in decoded]
            self.errors.append(batch.id, heard, [text.split() for text in batch.text])
        wanted = batch.characters
        loss = ctc_loss(log_probs, wanted.data, lengths, wanted.lengths, blank_index=0)
        self.note({"loss": loss})
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Take clips that were not heard yet."""
        super().on_stage_start(stage, epoch)
        self.errors = ErrorRateStats()
        if stage == sb.Stage.TRAIN:
            self.hparams.speech.epoch = epoch

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Add the word error rate to what is logged."""
        if stage != sb.Stage.TRAIN:
            self.note({"WER": self.errors.summarize("WER")})
        super().on_stage_end(stage, stage_loss, epoch)


def write_model(folder: Path, model: dict) -> None:
    """Write what ``EncoderASR.from_hparams`` opens."""
    folder.mkdir(exist_ok=True)
    shutil.copy(MODEL_FILE, folder / "hyperparams.yaml")
    torch.save(model["encoder"].state_dict(), folder / "encoder.ckpt")
    model["tokenizer"].save(folder / "tokenizer.ckpt")


def main() -> None:
    """Train, and write the folder ``model``."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    encoder = hparams["model"]["tokenizer"]
    encoder.insert_blank(index=0)
    encoder.update_from_iterable(" " + string.ascii_lowercase, sequence_input=False)
    seed = hparams["seed"]
    speech = Speech(hparams["n_train"], encoder, f"{seed} train")
    valid = Speech(hparams["n_valid"], encoder, f"{seed} valid")
    hparams["speech"] = speech
    brain = RecognizerBrain(
        hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"]
    )
    loader = {"batch_size": hparams["batch_size"], "collate_fn": PaddedBatch}
    brain.fit(
        hparams["epoch_counter"],
        speech,
        valid,
        train_loader_kwargs=loader,
        valid_loader_kwargs=loader,
    )
    brain.checkpointer.recover_if_possible()
    folder = Path(hparams["output_folder"]) / "model"
    run_on_main(write_model, args=[folder, hparams["model"]])
    print(f"Wrote {folder}: --recognizer={folder}")


if __name__ == "__main__":
    main()
