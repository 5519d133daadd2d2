"""Judging speech that was made for a caption: rewards, acoustic measurement, and their summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from speechbrain.inference.ASR import EncoderASR
from styles import StyleRequest, contrast_swap
from torch import Tensor

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_mean
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.guards import WordErrorGuard, word_error_rate
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.mini_fcaps.acoustics import (
    LOUDNESS_BOUNDS,
    PITCH_BOUNDS,
    decibels,
    median_pitch,
    pitch_spread,
    spectral_tilt,
)

RATE_BOUNDS = (13.1, 20.1)  # phonemes per second between MiniFCaps' levels


@dataclass(frozen=True)
class JudgedClip:
    """A clip [T] at 16 kHz, the caption it was made for, and its metrics.

    The metrics are what :func:`measure` returns and ``reward``; if there is a model for them also
    ``held_out_reward``, ``reward_gap`` (by how much the reward exceeds it) and ``word_error_rate``.
    """

    caption: str
    wav: Tensor
    metrics: dict[str, float]


class Judges:
    """The models that judge clips: one rewards, the others only measure.

    Arguments
    ---------
    clsp : str
        Folder or Hub repository of the CLSP that rewards.
    held_out_clsp : str, optional
        The held-out reward model: a CLSP that is never asked in training, so that a gain that it
        does not share is reward hacking.
    recognizer : str or EncoderASR, optional
        A recognizer, or a folder or Hub repository for ``EncoderASR.from_hparams``; word error
        rates are then measured.
    max_word_error_rate : float, optional
        Clips with more errors get the veto.
    scaling, n_contrasts, guards
        As for :class:`~speechbrain_clsp.inference.reward.StyleReward`; guards are the rewarding
        model's alone.

    Raises
    ------
    ValueError
        If ``max_word_error_rate`` is given without a recognizer.
    """

    def __init__(
        self,
        clsp: str,
        held_out_clsp: str | None = None,
        recognizer: str | EncoderASR | None = None,
        max_word_error_rate: float | None = None,
        scaling: str = "margin",
        n_contrasts: int = 8,
        guards: Sequence[Callable[..., Tensor]] = (),
    ) -> None:
        if isinstance(recognizer, str):
            recognizer = EncoderASR.from_hparams(recognizer, run_opts={"device": "cpu"})
        self.recognizer = recognizer
        if max_word_error_rate is not None:
            if recognizer is None:
                raise ValueError("max_word_error_rate needs a recognizer: give --recognizer=")
            guards = [*guards, WordErrorGuard(recognizer, max_word_error_rate)]
        options = {"scaling": scaling, "n_contrasts": n_contrasts, "swap": contrast_swap()}
        self.reward = StyleReward(CLSP.from_pretrained(clsp), guards=guards, **options)
        self.held_out_reward = None
        if held_out_clsp is not None:
            self.held_out_reward = StyleReward(CLSP.from_pretrained(held_out_clsp), **options)

    def judge(
        self,
        request: StyleRequest,
        clips: Sequence[tuple[Tensor, str]],
        text: str,
        n_phonemes: int,
    ) -> list[JudgedClip]:
        """Reward and measure clips that were made for the same request.

        Arguments
        ---------
        request : StyleRequest
            What was asked for.
        clips : sequence of (Tensor, str)
            Waveform [T] at 16 kHz, and the voice's gender.
        text, n_phonemes : str and int
            What is said, and how many phonemes that is.
        """
        wavs, wav_lens = pad([wav for wav, _ in clips])
        captions, texts = [request.caption] * len(clips), [text] * len(clips)
        columns = {}
        with torch.no_grad():
            columns["reward"] = self.reward(wavs, captions, wav_lens, texts=texts).numpy()
            if self.held_out_reward is not None:
                held_out = self.held_out_reward(wavs, captions, wav_lens).numpy()
                columns["held_out_reward"] = held_out
                columns["reward_gap"] = columns["reward"] - held_out
            if self.recognizer is not None:
                found, _ = self.recognizer.transcribe_batch(wavs, wav_lens)
                columns["word_error_rate"] = [word_error_rate(one, text) for one in found]
        return [
            JudgedClip(
                request.caption,
                wav,
                measure(request, wav, gender, n_phonemes)
                | {name: float(values[n]) for name, values in columns.items()},
            )
            for n, (wav, gender) in enumerate(clips)
        ]


def measure(request: StyleRequest, wav: Tensor, gender: str, n_phonemes: int) -> dict[str, float]:
    """Measure a clip [T] at 16 kHz of a voice of a known gender, and whether it is as requested.

    Returns
    -------
    dict of str to float
        ``satisfied`` (1 if all that was asked for was measured, else 0), ``satisfied_gender`` and
        ``satisfied_<attribute>``; phonemes per second, root mean square, median and spread of F0
        (NaN without a pitch) and spectral tilt.
    """
    samples = wav.double().numpy()
    acoustics = {
        "phonemes_per_second": n_phonemes / (len(samples) / SAMPLE_RATE),
        "level_db": decibels(samples),
        "f0_hz": median_pitch(samples),
        "f0_spread_semitones": pitch_spread(samples),
        "spectral_tilt_db": spectral_tilt(samples),
    }
    bounds = {
        "rate": ("phonemes_per_second", RATE_BOUNDS),
        "loudness": ("level_db", LOUDNESS_BOUNDS),
        "pitch": ("f0_hz", PITCH_BOUNDS[gender]),
    }
    satisfied = {"gender": gender == request.gender}
    for attribute, level in request.levels.items():
        metric, edges = bounds[attribute]
        value = acoustics[metric]
        satisfied[attribute] = not np.isnan(value) and np.searchsorted(edges, value) == level
    return {
        "satisfied": float(all(satisfied.values())),
        **{f"satisfied_{name}": float(value) for name, value in satisfied.items()},
        **acoustics,
    }


def metrics_frame(clips: Sequence[JudgedClip]) -> pd.DataFrame:
    """Return the metrics of clips: a row per clip; NaN where an attribute was not asked for."""
    return pd.DataFrame([clip.metrics for clip in clips])


def estimate_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return a mean with its 95 % bootstrap interval; NaNs are left out.

    Example
    -------
    >>> estimate_mean([1.0, float("nan"), 1.0])
    Estimate(value=1.0, low=1.0, high=1.0, chance=None)
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate(float(values.mean()), *bootstrap_mean(values, seed))


def compare(
    before: pd.DataFrame, after: pd.DataFrame, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Compare two frames whose rows belong together: means, and the mean change row by row.

    The change of ``reward_gap`` tells reward hacking: by how much more the reward rose than the
    held-out reward model's.

    Returns
    -------
    dict
        For each column, ``before``, ``after`` and ``change``.

    Example
    -------
    >>> table = compare(pd.DataFrame({"f0_hz": [90, 200]}), pd.DataFrame({"f0_hz": [91, 203]}))
    >>> table["f0_hz"]["change"].value
    2.0
    """
    frames = {"before": before, "after": after, "change": after - before}
    return {
        name: {when: estimate_mean(frame[name], seed) for when, frame in frames.items()}
        for name in after
    }
