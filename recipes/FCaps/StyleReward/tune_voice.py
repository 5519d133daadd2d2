#!/usr/bin/env python3
"""Recipe that tunes a FastSpeech2 voice to a style by gradients of CLSP.

Captions of the style reward what is spoken; the reward's gradients go back through CLSP and a
frozen vocoder to the decoder and to the predictor of energy. The level that is asked for, of pitch
or energy, follows the reward's slope over a wide step. Anchors hold the rest to the frozen voice.
What came of it is measured in the audio, on sentences and wordings that training never saw.
Durations have no gradient: for the rate see train_policy.py.

> python tune_voice.py hparams/tune.yaml --data_folder=/path/to/voice --voice=/path/to/fastspeech2 \
    --vocoder=/path/to/vocoder --clsp=/path/to/model --judge=/path/to/other/model --pitch=2
"""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
import torch
from experiment import AveragingBrain, start_experiment
from outcome import Critics, Outcome, mean_with_interval, open_critics, summarize
from page import write_outcome
from safetensors.torch import save_file
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.nnet.losses import l1_loss, mse_loss
from speechbrain.utils.distributed import run_on_main
from styles import StyleRequest, captions_of
from torch import Tensor, nn
from torch.utils.data import Subset
from torchaudio.functional import resample
from voice import Spoken, SyntheticVoice, Voice, per_frame, whole_frames

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.inference.guards import LevelGuard
from speechbrain_clsp.pretrained.folder import state_of

PARTS = {"pitch": "pitch", "loudness": "energy"}  # what FastSpeech2 calls what is asked for


class Utterances(NamedTuple):
    """What a voice spoke.

    Arguments
    ---------
    wavs : Tensor
        [B, T] at 16 kHz, zero padded.
    lengths : Tensor
        [B] relative to T.
    spoken : Spoken
        Filter banks and prosody.
    start : Spoken
        The frozen voice's.
    same : Spoken
        What the frozen voice makes of the same pitch and energy.
    """

    wavs: Tensor
    lengths: Tensor
    spoken: Spoken
    start: Spoken
    same: Spoken


def speak(voice: nn.Module, source: SyntheticVoice, tokens: Tensor, given: Tensor) -> Utterances:
    """Speak, differentiably in a voice's filter banks.

    Arguments
    ---------
    voice : nn.Module
        The one that speaks.
    source : SyntheticVoice
        The frozen voice that it started from, whose durations are kept, and the vocoder.
    tokens, given : Tensor
        [B, N] phonemes, and any durations, in frames.
    """
    frozen = source.frozen
    with torch.no_grad():
        start = frozen(tokens, given)
        frames = whole_frames(start.log_frames, tokens)
    spoken = voice(tokens, frames)
    pitch, energy = (per_frame(part, frames) for part in (spoken.pitch, spoken.energy))
    with torch.no_grad():
        same = frozen(tokens, frames, pitch, energy)
    return Utterances(*sound(source, spoken.mels, pitch, frames), spoken, start, same)


def sound(
    source: SyntheticVoice, mels: Tensor, pitch: Tensor, frames: Tensor
) -> tuple[Tensor, Tensor]:
    """Return waveforms [B, T] at 16 kHz of filter banks, and their lengths relative to T.

    Arguments
    ---------
    source : SyntheticVoice
        With the vocoder.
    mels : Tensor
        [B, F, n_mels].
    pitch : Tensor
        [B, F] in deviations.
    frames : Tensor
        [B, N] of each phoneme.
    """
    # Not through the phase of the source: see level_slope.
    hertz, counts = source.frozen.hertz(pitch).detach(), frames.sum(dim=1)
    wavs = source.vocoder(mels, hertz)
    inside = torch.arange(wavs.shape[1], device=wavs.device) < counts[:, None] * source.vocoder.hop
    return resample(wavs * inside, source.sample_rate, SAMPLE_RATE), counts / counts.max()


@contextmanager
def shifted(voice: Voice, part: str, step: float) -> Iterator[None]:
    """Let a voice predict a ``pitch`` or ``energy`` that is higher by so many deviations."""
    predictor = getattr(voice.fastspeech2, f"{part}Pred")
    hook = predictor.register_forward_hook(lambda module, given, found: found + step)
    try:
        yield
    finally:
        hook.remove()


def level_slope(
    reward: Callable[[Utterances], Tensor],
    say: Callable[[], Utterances],
    voice: Voice,
    part: str,
    step: float,
) -> Tensor:
    """Return by how much the reward rises per deviation of pitch or of energy, [B].

    Central differences of the whole chain. In pitch, autograd's exact gradient is of no use: it
    follows where each pulse of the voice falls within the frames of the filter banks, a ripple a
    hundred times as steep as the slope that it rides on.

    Arguments
    ---------
    reward : callable
        Of utterances, [B].
    say : callable
        Speaks the batch.
    voice : Voice
        The one that speaks.
    part : str
        ``pitch`` or ``energy``.
    step : float
        Deviations to either side.
    """
    ends = []
    for sign in (1, -1):
        with torch.no_grad(), shifted(voice, part, sign * step):
            ends.append(reward(say()))
    return (ends[0] - ends[1]) / (2 * step)


class TuningBrain(AveragingBrain):
    """A voice that climbs the reward, held by the frozen voice it started from."""

    def compute_forward(self, batch, stage):
        """Speak; return the utterances, their rewards [B], and the reward's slopes in training."""
        batch = batch.to(self.device)
        # Brain.fit turned training mode on; dropout and batch statistics would change the voice.
        self.modules.voice.eval()
        source, draw = self.hparams.opened, self.draw
        captions = draw.choices(self.hparams.captions["train"], k=len(batch))

        def say() -> Utterances:
            return speak(self.modules.voice, source, batch.tokens.data, batch.frames.data)

        def reward(made: Utterances) -> Tensor:
            return self.hparams.reward(made.wavs, captions, made.lengths, texts=batch.text)

        made, slopes = say(), {}
        if stage == sb.Stage.TRAIN:
            slopes = {
                part: level_slope(reward, say, source.voice, part, self.hparams.step)
                for part in self.hparams.asked
            }
        return made, reward(made), slopes

    def compute_objectives(self, predictions, batch, stage):
        """Return what is to be small: the reward's negative, and what anchors hold."""
        made, rewards, slopes = predictions
        lengths = batch.tokens.lengths.to(self.device)
        parts = {
            "reward": rewards.mean(),
            "pitch": mse_loss(made.spoken.pitch, made.start.pitch, lengths),
            "energy": mse_loss(made.spoken.energy, made.start.energy, lengths),
            "mel": l1_loss(made.spoken.mels, made.same.mels, made.lengths),
        }
        self.note(parts)
        weights = {"reward": -1.0, "mel": self.hparams.mel_weight}
        for part in PARTS.values():
            is_asked = part in self.hparams.asked
            weights[part] = self.hparams.asked_weight if is_asked else self.hparams.kept_weight
        loss = sum(weight * parts[name] for name, weight in weights.items())
        inside = batch.tokens.data != 0
        for name, slope in slopes.items():
            level = (getattr(made.spoken, name) * inside).sum(dim=1) / inside.sum(dim=1)
            loss = loss - (slope * (level - level.detach())).mean()  # adds a gradient, no value
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Start counting anew; captions are those of the epoch, also after a stop."""
        super().on_stage_start(stage, epoch)
        self.draw = random.Random(f"{self.hparams.seed} {epoch}")


def train_only(voice: Voice, parts: Sequence[str]) -> None:
    """Freeze a voice but for some parts of its FastSpeech2.

    Raises
    ------
    ValueError
        If there is no such part.
    """
    known = dict(voice.fastspeech2.named_children())
    if unknown := set(parts) - set(known):
        raise ValueError(f"FastSpeech2 has no {sorted(unknown)}; its parts are {sorted(known)}")
    voice.requires_grad_(False)
    for part in parts:
        known[part].requires_grad_(True)


def outcomes_of(
    hparams: dict, voice: Voice, critics: Critics
) -> tuple[list[Outcome], dict[str, list[float]]]:
    """Speak every test sentence by a held-out wording, reward and measure it.

    Returns
    -------
    outcomes : list of Outcome
        One a sentence.
    held : dict
        Compared with the frozen voice at the same pitch and energy: how far filter banks are from
        its own (``mel_distance``), and what of it is misheard, in % (``frozen_words``).
    """
    source, gender, wordings = hparams["opened"], hparams["gender"], hparams["captions"]["held_out"]
    outcomes, held = [], {"mel_distance": []}
    for item, caption in zip(source.sentences["test"], cycle(wordings)):
        tokens, given = item["tokens"][None], item["frames"][None]
        with torch.no_grad():
            made = speak(voice, source, tokens, given)
        request = StyleRequest(caption, gender, hparams["levels"])
        said = made.wavs[0], gender, item["text"], tokens.shape[1]
        outcomes.append(critics.outcome(request, *said))
        held["mel_distance"].append(float((made.spoken.mels - made.same.mels).abs().mean()))
        if critics.recognizer is not None:
            frames = whole_frames(made.start.log_frames, tokens)
            sounds = sound(source, made.same.mels, per_frame(made.spoken.pitch, frames), frames)
            errors = critics.word_errors(*sounds, [item["text"]])
            held.setdefault("frozen_words", []).append(100 * errors[0])
    return outcomes, held


def open_all(hparams: dict) -> Critics:
    """Load the voice, its vocoder and the reward into hparams; returns all critics."""
    levels = {name: hparams[name] for name in PARTS}
    hparams["levels"] = {name: level for name, level in levels.items() if level is not None}
    if not hparams["levels"]:
        raise ValueError("Say what to tune to: --pitch or --loudness, 0 for low, 1, or 2 for high")
    hparams["asked"] = [PARTS[name] for name in hparams["levels"]]
    hparams["captions"] = captions_of(hparams["gender"], hparams["levels"])
    hparams["opened"] = hparams["source"]()
    train_only(hparams["opened"].voice, hparams["trained"])
    critics = open_critics(hparams, [LevelGuard()])
    hparams["reward"] = critics.reward
    return critics


def main() -> None:
    """Tune, then measure what came of it and write voice.safetensors and report.html."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    critics = open_all(hparams)
    source, checkpointer = hparams["opened"], hparams["checkpointer"]
    checkpointer.add_recoverable("voice", source.voice)
    brain = TuningBrain(
        {"voice": source.voice}, hparams["opt_class"], hparams, run_opts, checkpointer
    )
    for module in (source.frozen, source.vocoder):
        module.to(brain.device)
    loader = {"batch_size": hparams["batch_size"], "collate_fn": PaddedBatch}
    train = source.sentences["train"]
    brain.fit(
        hparams["epoch_counter"],
        Subset(train, range(min(hparams["n_sentences"], len(train)))),
        source.sentences["valid"],
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    brain.checkpointer.recover_if_possible()
    run_on_main(finish, args=[hparams, critics])


def finish(hparams: dict, critics: Critics) -> None:
    """Compare the tuned voice with the frozen one on test sentences."""
    output, source = Path(hparams["output_folder"]), hparams["opened"]
    for module in (source.voice, source.frozen, source.vocoder):
        module.eval().cpu()
    save_file(state_of({"voice": source.voice}), output / "voice.safetensors")
    before, _ = outcomes_of(hparams, source.frozen, critics)
    after, held = outcomes_of(hparams, source.voice, critics)
    figures = summarize(before, after, hparams["seed"])
    for name, values in held.items():
        figures[name] = mean_with_interval(values, hparams["seed"])
    (output / "tuning.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    title = f"A voice tuned to: {hparams['captions']['held_out'][0]}"
    write_outcome(output / "report.html", title, figures, before, after, hparams["train_log"])
    print(json.dumps(figures, indent=1))
    print(f"voice.safetensors, and report.html with examples to listen to, are in {output}")


if __name__ == "__main__":
    main()
