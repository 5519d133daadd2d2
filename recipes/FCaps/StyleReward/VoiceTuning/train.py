#!/usr/bin/env python3
"""Recipe that tunes a FastSpeech2 voice to a style by gradients of CLSP.

The reward's gradients go back through CLSP and a frozen vocoder to the decoder and to the predictor
of energy. The level that is asked for, of pitch or energy, follows the reward's slope over a wide
step. Anchors hold the rest to the frozen voice. The result is measured in the audio, on sentences
and captions that were held out. Durations have no gradient: for the rate see PolicyGradient.

> python train.py hparams/pretrained.yaml --clsp=/path/to/model --pitch=2
"""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pandas as pd
import speechbrain as sb
import torch
from common import MeanLoggingBrain, start_experiment
from judging import JudgedClip, compare, metrics_frame
from report import training_curves, write_results
from safetensors.torch import save_file
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.nnet.losses import l1_loss, mse_loss
from speechbrain.utils.distributed import run_on_main
from styles import StyleRequest
from torch import Tensor
from voice import Utterances, Voice

from speechbrain_clsp.pretrained.folder import state_of

PREDICTED = {"pitch": "pitch", "loudness": "energy"}  # what FastSpeech2 calls each attribute
N_EXAMPLES = 8


@contextmanager
def shifted(voice: Voice, part: str, step: float) -> Iterator[None]:
    """Let a voice predict a ``pitch`` or ``energy`` that is higher by ``step``."""
    predictor = getattr(voice.fastspeech2, f"{part}Pred")
    hook = predictor.register_forward_hook(lambda module, given, found: found + step)
    try:
        yield
    finally:
        hook.remove()


def level_slope(
    reward: Callable[[Utterances], Tensor],
    speak: Callable[[], Utterances],
    voice: Voice,
    part: str,
    step: float,
) -> Tensor:
    """Return by how much the reward rises per standard deviation of pitch or of energy, [B].

    Central differences of the whole chain. In pitch, autograd's exact gradient is of no use: it
    follows where each pulse of the voice falls within the frames of the spectrogram, a ripple far
    steeper than the slope that it rides on.

    Arguments
    ---------
    reward : callable
        Of utterances, [B].
    speak : callable
        Speaks the batch.
    voice : Voice
        The one that speaks.
    part : str
        ``pitch`` or ``energy``.
    step : float
        Standard deviations to either side.
    """
    ends = []
    for sign in (1, -1):
        with torch.no_grad(), shifted(voice, part, sign * step):
            ends.append(reward(speak()))
    return (ends[0] - ends[1]) / (2 * step)


class TuningBrain(MeanLoggingBrain):
    """Raises the reward of a voice that anchors hold to the frozen one it started from."""

    def compute_forward(self, batch, stage):
        """Speak; return the utterances, their rewards [B], and the reward's slopes in training."""
        batch = batch.to(self.device)
        voices, target = self.hparams.voices, self.hparams.target
        # Brain.fit turned training mode on; dropout and batch statistics would change the voice.
        self.modules.voice.eval()
        captions = self.generator.choices(target.train_captions, k=len(batch))

        def speak() -> Utterances:
            return voices.speak(batch.tokens.data, self.modules.voice)

        def reward(made: Utterances) -> Tensor:
            rewards = self.hparams.judges.reward
            return rewards(made.wavs, captions, made.wav_lens, texts=batch.text)

        made = speak()
        slopes = {}
        if stage == sb.Stage.TRAIN:
            for name in target.levels:
                part = PREDICTED[name]
                slopes[part] = level_slope(reward, speak, voices.tuned, part, self.hparams.step)
        return made, reward(made), slopes

    def compute_objectives(self, predictions, batch, stage):
        """Return the loss: the negative reward, and the distances that anchors keep small."""
        made, rewards, slopes = predictions
        lengths = batch.tokens.lengths.to(self.device)
        terms = {
            "reward": rewards.mean(),
            "pitch": mse_loss(made.spoken.pitch, made.start.pitch, lengths),
            "energy": mse_loss(made.spoken.energy, made.start.energy, lengths),
            "mel": l1_loss(made.spoken.mels, made.same.mels, made.wav_lens),
        }
        self.log_values(terms)
        weights = {"reward": -1.0, "mel": self.hparams.mel_weight}
        for name, part in PREDICTED.items():
            is_asked = name in self.hparams.target.levels
            weights[part] = self.hparams.asked_weight if is_asked else self.hparams.kept_weight
        loss = sum(weight * terms[name] for name, weight in weights.items())
        inside = batch.tokens.data != 0
        for part, slope in slopes.items():
            level = (getattr(made.spoken, part) * inside).sum(dim=1) / inside.sum(dim=1)
            loss = loss - (slope * (level - level.detach())).mean()  # adds a gradient, no value
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Seed the draw of captions by the epoch, so that a stop does not change it."""
        super().on_stage_start(stage, epoch)
        self.generator = random.Random(f"{self.hparams.seed} {epoch}")


def judge_voice(hparams: dict, voice: Voice) -> tuple[list[JudgedClip], pd.DataFrame]:
    """Speak every test sentence for a held-out caption, and judge it.

    Returns
    -------
    clips : list of JudgedClip
        One per sentence.
    metrics : DataFrame
        Theirs, and ``log_mel_difference``, the mean absolute one to what the frozen voice makes of
        the same pitch and energy.
    """
    voices, target = hparams["voices"], hparams["target"]
    clips, differences = [], []
    for item, caption in zip(voices.sentences["test"], cycle(target.held_out_captions)):
        tokens = item["tokens"][None]
        with torch.no_grad():
            made = voices.speak(tokens, voice)
        request = StyleRequest(caption, target.gender, target.levels)
        spoken = [(made.wavs[0], target.gender)]
        clips += hparams["judges"].judge(request, spoken, item["text"], tokens.shape[1])
        differences.append(float((made.spoken.mels - made.same.mels).abs().mean()))
    return clips, metrics_frame(clips).assign(log_mel_difference=differences)


def evaluate_voice(hparams: dict) -> None:
    """Save the tuned voice, compare it with the frozen one, and write the results."""
    output, voices = Path(hparams["output_folder"]), hparams["voices"].cpu().eval()
    save_file(state_of({"voice": voices.tuned}), output / "voice.safetensors")
    (before, start), (after, tuned) = (
        judge_voice(hparams, voice) for voice in (voices.frozen, voices.tuned)
    )
    write_results(
        output,
        f"A voice tuned to: {hparams['target'].held_out_captions[0]}",
        {"Held-out sentences and captions": compare(start, tuned, hparams["seed"])},
        training_curves(hparams["train_log"]),
        [
            (second.caption, {"before": first.wav, "after": second.wav})
            for first, second in list(zip(before, after))[:N_EXAMPLES]
        ],
    )


def main() -> None:
    """Tune, then write voice.safetensors, metrics.json and report.html."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    torch.set_num_threads(hparams["num_threads"])
    voices, checkpointer = hparams["voices"], hparams["checkpointer"]
    checkpointer.add_recoverable("voice", voices.tuned)
    brain = TuningBrain(
        {"voice": voices.tuned},
        hparams["opt_class"],
        hparams,
        run_opts,
        checkpointer,
        train_logger=hparams["train_logger"],
    )
    voices.to(brain.device)
    loader = {"batch_size": hparams["batch_size"], "collate_fn": PaddedBatch}
    brain.fit(
        hparams["epoch_counter"],
        voices.sentences["train"][: hparams["n_sentences"]],
        voices.sentences["valid"],
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    checkpointer.recover_if_possible()
    run_on_main(evaluate_voice, args=[hparams])


if __name__ == "__main__":
    main()
