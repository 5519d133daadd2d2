#!/usr/bin/env python3
"""Recipe for the embedded voice: a small FastSpeech2 of espeak-ng's speech, then its vocoder.

The vocoder learns from the FastSpeech2's spectrograms, by spectral losses alone: see vocoder.py for
why that is enough without discriminators.

> python train_embedded.py hparams/train_embedded.yaml --data_folder=data
"""

import sys
from pathlib import Path

import speechbrain as sb
import torch
from common import MeanLoggingBrain, start_experiment
from embedded import PHONEMES, WEIGHTS, phoneme_encoder, voice_dataset
from safetensors.torch import save_file
from speechbrain.nnet.losses import l1_loss, mse_loss
from speechbrain.utils.distributed import run_on_main
from torch import Tensor
from torch.nn.functional import pad
from voice_prepare import prepare_voice

from speechbrain_clsp.pretrained.folder import state_of


class VoiceBrain(MeanLoggingBrain):
    """FastSpeech2 with given durations, pitch and energy, which it also learns to predict."""

    def compute_forward(self, batch, stage):
        """Return what is spoken."""
        batch = batch.to(self.device)
        scaled = self.hparams.model["voice"].scaled(batch.pitch.data, batch.energy.data)
        return self.modules.voice(batch.tokens.data, batch.frames.data, *scaled)

    def compute_objectives(self, spoken, batch, stage):
        """Return the distance of spectrograms, before and after the post-net, and of prosody."""
        mels, lengths = batch.mels
        frames, phone_lengths = batch.frames
        losses = {
            "mels": l1_loss(spoken.mels, mels, lengths),
            "rough_mels": l1_loss(spoken.rough_mels, mels, lengths),
            "frames": mse_loss(spoken.log_frames, frames.float().log1p(), phone_lengths),
            "pitch": mse_loss(spoken.pitch, spoken.given_pitch, phone_lengths),
            "energy": mse_loss(spoken.energy, spoken.given_energy, phone_lengths),
        }
        self.log_values(losses)
        return sum(losses.values())


def cut(values: Tensor, starts: list[int], length: int) -> Tensor:
    """Cut a stretch out of every row of [B, T, ...], zero padded if the row ends before.

    Example
    -------
    >>> cut(torch.arange(6.0).view(2, 3), [0, 2], 2).tolist()
    [[0.0, 1.0], [5.0, 0.0]]
    """
    rows = [row[start : start + length] for row, start in zip(values, starts)]
    edges = [0, 0] * (values.dim() - 2)
    return torch.stack([pad(row, (*edges, 0, length - len(row))) for row in rows])


class VocoderBrain(MeanLoggingBrain):
    """A generator that learns the spectra of short stretches of clips."""

    def compute_forward(self, batch, stage):
        """Return stretches that were made, and those of the clips, [B, T] each."""
        batch = batch.to(self.device)
        teacher = self.hparams.model["voice"]
        with torch.no_grad():
            scaled = teacher.scaled(batch.pitch.data, batch.energy.data)
            spoken = teacher(batch.tokens.data, batch.frames.data, *scaled)
        length, hop = self.hparams.segment, self.hparams.model["hop"]
        # In the middle for validation, so that epochs can be compared.
        where = torch.rand(len(batch)) if stage == sb.Stage.TRAIN else torch.full([len(batch)], 0.5)
        spare = batch.frames.data.sum(dim=1).cpu() - length
        starts = (where * spare.clamp_min(0)).long().tolist()
        mels, pitch = (cut(part, starts, length) for part in (spoken.mels, batch.pitch.data))
        made = self.modules.vocoder(mels, pitch.clamp_min(1.0))
        return made, cut(batch.audio.data, [start * hop for start in starts], length * hop)

    def compute_objectives(self, predictions, batch, stage):
        """Return the distance of spectra."""
        loss = self.hparams.loss(*predictions)
        self.log_values({"loss": loss})
        return loss


def fit(brain_class, training, hparams, run_opts, *datasets) -> None:
    """Train the module of ``voice_training`` or ``vocoder_training``, and freeze it."""
    brain = brain_class(
        training["modules"],
        training["opt_class"],
        hparams,
        run_opts,
        training["checkpointer"],
        train_logger=training["train_logger"],
        lr_annealing=training["lr_annealing"],
    )
    hparams["model"]["voice"].to(brain.device)
    loader = {"batch_size": hparams["batch_size"]}
    brain.fit(
        training["epoch_counter"],
        *datasets,
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    training["checkpointer"].recover_if_possible()
    for module in training["modules"].values():
        module.eval().requires_grad_(False)


def main() -> None:
    """Prepare, train both, and write embedded.safetensors and phonemes.txt."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    torch.set_num_threads(hparams["num_threads"])
    folder, output = hparams["data_folder"], Path(hparams["output_folder"])
    prepared = {"variant": hparams["variant"], "n_train": hparams["n_train"]}
    run_on_main(prepare_voice, args=[folder, hparams["skip_prep"]], kwargs=prepared)
    encoder = phoneme_encoder(output / PHONEMES, Path(folder) / "train.json")
    model = hparams["model"]
    datasets = [
        voice_dataset(folder, split, encoder, model["features"]) for split in ("train", "valid")
    ]
    model["voice"].learn_scales(datasets[1])
    random_state = torch.get_rng_state()
    fit(VoiceBrain, hparams["voice_training"], hparams, run_opts, *datasets)
    torch.set_rng_state(random_state)  # the same whether the voice's training was resumed or not
    fit(VocoderBrain, hparams["vocoder_training"], hparams, run_opts, *datasets)
    weights = state_of({name: model[name].cpu() for name in ("voice", "vocoder")})
    run_on_main(save_file, args=[weights, output / WEIGHTS])
    print(f"Wrote the voice: --voice_folder={output}")


if __name__ == "__main__":
    main()
