#!/usr/bin/env python3
"""Recipe for a small vocoder of a voice: from FastSpeech2's filter banks and a pitch to waveforms.

Trained with spectral losses alone, no discriminators: see vocoder.py for why that is enough.

> python train_vocoder.py hparams/vocoder.yaml --data_folder=/path/to/voice \
    --voice=/path/to/fastspeech2
"""

import sys
from pathlib import Path

import speechbrain as sb
import torch
from experiment import AveragingBrain, start_experiment
from safetensors.torch import save_file
from speechbrain.utils.distributed import run_on_main
from torch import Tensor
from torch.nn.functional import pad
from voice import load_frozen, phoneme_encoder, voice_dataset

from speechbrain_clsp.pretrained.folder import state_of


def cut(values: Tensor, starts: list[int], length: int) -> Tensor:
    """Cut a stretch out of every row of [B, T, ...], padded with zeros if a row ends before.

    Example
    -------
    >>> cut(torch.arange(6.0).view(2, 3), [0, 2], 2).tolist()
    [[0.0, 1.0], [5.0, 0.0]]
    """
    rows = [row[start : start + length] for row, start in zip(values, starts)]
    edges = [0, 0] * (values.dim() - 2)
    return torch.stack([pad(row, (*edges, 0, length - len(row))) for row in rows])


class VocoderBrain(AveragingBrain):
    """A generator that learns the spectra of short stretches of clips."""

    def compute_forward(self, batch, stage):
        """Return stretches that were made, and those of the clips, [B, T] each."""
        batch = batch.to(self.device)
        with torch.no_grad():
            teacher = self.hparams.model["voice"]
            scaled = teacher.scaled(batch.pitch.data, batch.energy.data)
            spoken = teacher(batch.tokens.data, batch.frames.data, *scaled)
        frames, hop = self.hparams.segment, self.hparams.model["hop"]
        # In the middle for validation, so that epochs can be compared.
        where = torch.rand(len(batch)) if stage == sb.Stage.TRAIN else torch.full([len(batch)], 0.5)
        spare = batch.frames.data.sum(dim=1).cpu() - frames
        starts = (where * spare.clamp_min(0)).long().tolist()
        mels, pitch = (cut(part, starts, frames) for part in (spoken.mels, batch.pitch.data))
        made = self.modules.vocoder(mels, pitch.clamp_min(1.0))
        samples = [start * hop for start in starts]
        return made, cut(batch.audio.data, samples, frames * hop)

    def compute_objectives(self, predictions, batch, stage):
        """Return the distance of spectra."""
        loss = self.hparams.loss(*predictions)
        self.note({"loss": loss})
        return loss


def main() -> None:
    """Train, and write vocoder.safetensors."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    model, voice, folder = (hparams[name] for name in ("model", "voice", "data_folder"))
    load_frozen(Path(voice) / "voice.safetensors", {"voice": model["voice"]})
    encoder = phoneme_encoder(Path(voice) / "phonemes.txt")
    train, valid = (
        voice_dataset(Path(folder) / f"{split}.json", folder, encoder, model["features"])
        for split in ("train", "valid")
    )
    brain = VocoderBrain(
        hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"]
    )
    model["voice"].to(brain.device)
    loader = {"batch_size": hparams["batch_size"]}
    brain.fit(
        hparams["epoch_counter"],
        train,
        valid,
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    brain.checkpointer.recover_if_possible()
    path = Path(hparams["output_folder"]) / "vocoder.safetensors"
    run_on_main(save_file, args=[state_of(hparams["modules"]), path])
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
