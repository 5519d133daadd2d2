#!/usr/bin/env python3
"""Recipe for a small FastSpeech2 on one synthetic voice, to be tuned by style reward afterwards.

> python train_fastspeech2.py hparams/fastspeech2.yaml --data_folder=/path/to/voice
"""

import sys
from pathlib import Path

from experiment import AveragingBrain, start_experiment
from safetensors.torch import save_file
from speechbrain.nnet.losses import l1_loss, mse_loss
from speechbrain.utils.distributed import run_on_main
from voice import phoneme_encoder, voice_dataset

from speechbrain_clsp.pretrained.folder import state_of


class VoiceBrain(AveragingBrain):
    """FastSpeech2 with given durations, pitch and energy, which it also learns to predict."""

    def compute_forward(self, batch, stage):
        """Return what is spoken."""
        batch = batch.to(self.device)
        scaled = self.hparams.model["voice"].scaled(batch.pitch.data, batch.energy.data)
        return self.modules.voice(batch.tokens.data, batch.frames.data, *scaled)

    def compute_objectives(self, spoken, batch, stage):
        """Return the distance of filter banks, before and after the post-net, and of prosody."""
        mels, lengths = batch.mels
        frames, phone_lengths = batch.frames
        losses = {
            "mels": l1_loss(spoken.mels, mels, lengths),
            "rough_mels": l1_loss(spoken.rough_mels, mels, lengths),
            "frames": mse_loss(spoken.log_frames, frames.float().log1p(), phone_lengths),
            "pitch": mse_loss(spoken.pitch, spoken.given_pitch, phone_lengths),
            "energy": mse_loss(spoken.energy, spoken.given_energy, phone_lengths),
        }
        self.note(losses)
        return sum(losses.values())


def main() -> None:
    """Prepare the voice, train, and write voice.safetensors and phonemes.txt."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    run_on_main(hparams["prepare_data"])
    folder, output = Path(hparams["data_folder"]), Path(hparams["output_folder"])
    encoder = phoneme_encoder(output / "phonemes.txt", folder / "train.json")
    train, valid = (
        voice_dataset(folder / f"{split}.json", folder, encoder, hparams["model"]["features"])
        for split in ("train", "valid")
    )
    voice = hparams["model"]["voice"]
    voice.learn_scales(valid)
    brain = VoiceBrain(
        hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"]
    )
    loader = {"batch_size": hparams["batch_size"]}
    brain.fit(
        hparams["epoch_counter"],
        train,
        valid,
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    brain.checkpointer.recover_if_possible()
    run_on_main(save_file, args=[state_of(hparams["modules"]), output / "voice.safetensors"])
    print(f"voice.safetensors and phonemes.txt are in {output}")


if __name__ == "__main__":
    main()
