"""What came of a request: audio, rewards, and what was measured; and figures of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from speechbrain.inference.ASR import EncoderASR
from speechbrain_clsp.evaluation.models.adapters import ClspAdapter
from styles import StyleRequest, contrast_swap, is_met, measure
from torch import Tensor

from speechbrain_clsp.evaluation.statistics import bootstrap_mean
from speechbrain_clsp.inference.guards import WordErrorGuard, word_error_rate
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.pretrained.hub import find_file


@dataclass
class Critics:
    """All that judge a clip.

    Arguments
    ---------
    reward : StyleReward
        The model that rewards, with guards.
    judge : StyleReward or None
        A second one, which is never asked in training.
    recognizer : EncoderASR or None
        Tells what words are heard.
    """

    reward: StyleReward
    judge: StyleReward | None = None
    recognizer: EncoderASR | None = None

    def outcome(
        self, request: StyleRequest, wav: Tensor, gender: str, text: str, phonemes: int
    ) -> Outcome:
        """Reward and measure a clip that should be as requested.

        Arguments
        ---------
        request : StyleRequest
            What was asked for.
        wav : Tensor
            [T] at 16 kHz.
        gender : str
            That of the voice.
        text : str
            What is said.
        phonemes : int
            How many they are.
        """
        with torch.no_grad():
            rewards = [
                None if model is None else float(model(wav[None], [request.caption], texts=[text]))
                for model in (self.reward, self.judge)
            ]
        measured = measure(wav.double().numpy(), phonemes)
        if self.recognizer is not None:
            measured["words"] = 100 * self.word_errors(wav[None], torch.ones(1), [text])[0]
        return Outcome(request, wav, *rewards, is_met(request, measured, gender), measured)

    def word_errors(self, wavs: Tensor, wav_lens: Tensor, texts: Sequence[str]) -> list[float]:
        """Return the word error rate of each clip."""
        heard = self.recognizer.transcribe_batch(wavs, wav_lens)[0]
        return [word_error_rate(*pair) for pair in zip(heard, texts)]


def open_critics(
    hparams: Mapping[str, Any], guards: Sequence[Callable[..., Tensor]] = ()
) -> Critics:
    """Open the models that a recipe names: ``clsp``, and ``judge`` and ``recognizer`` if given.

    Raises
    ------
    ValueError
        If ``most_word_errors`` is given without a recognizer.
    FileNotFoundError
        If a model is not where it should be.
    """
    recognizer, most = None, hparams["most_word_errors"]
    if hparams["recognizer"] is not None:
        find_file(hparams["recognizer"], "hyperparams.yaml")  # tells at once what is missing
        recognizer = EncoderASR.from_hparams(hparams["recognizer"], run_opts={"device": "cpu"})
    if most is not None:
        if recognizer is None:
            raise ValueError("most_word_errors needs --recognizer=, a folder or Hub repository")
        hear = lambda wavs, lens: recognizer.transcribe_batch(wavs, lens)[0]  # noqa: E731
        guards = [*guards, WordErrorGuard(hear, most)]
    options = {"scaling": hparams["scaling"], "n_contrasts": hparams["n_contrasts"]}
    options["swap"] = contrast_swap()
    judge = hparams["judge"]
    return Critics(
        StyleReward(ClspAdapter(hparams["clsp"]).clsp, guards=guards, **options),
        None if judge is None else StyleReward(ClspAdapter(judge).clsp, **options),
        recognizer,
    )


@dataclass
class Outcome:
    """A request that was spoken.

    Arguments
    ---------
    request : StyleRequest
        What was asked for.
    wav : Tensor
        [T].
    reward : float
        Of the model that rewards.
    judged : float or None
        Of the second one.
    met : dict
        Whether each asked attribute was measured in the audio.
    measured : dict
        What was measured; see ``styles.UNITS``.
    """

    request: StyleRequest
    wav: Tensor
    reward: float
    judged: float | None
    met: dict[str, bool]
    measured: dict[str, float]

    @property
    def is_met(self) -> bool:
        """Whether all asked attributes are there."""
        return all(self.met.values())


def mean_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return a mean with its 95 % bootstrap interval; what is NaN is left out."""
    values = np.array(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    low, high = bootstrap_mean(values, seed)
    return {"value": float(values.mean()), "low": low, "high": high}


def summarize(before: list[Outcome], after: list[Outcome], seed: int) -> dict[str, Any]:
    """Return shares of requests that were met, and rewards, before and after.

    ``hacking_gap`` is by how much more the reward rose than the second model's, clip by clip: 0 if
    both like the change equally.
    """
    figures: dict[str, Any] = {}
    known = before[0].measured
    for name, outcomes in (("before", before), ("after", after)):
        found = figures[name] = {
            "met": mean_with_interval([outcome.is_met for outcome in outcomes], seed),
            "reward": mean_with_interval([outcome.reward for outcome in outcomes], seed),
        }
        if outcomes[0].judged is not None:
            found["judged"] = mean_with_interval([outcome.judged for outcome in outcomes], seed)
        attributes = sorted({name for outcome in outcomes for name in outcome.met})
        found["by_attribute"] = {
            attribute: mean_with_interval(
                [o.met[attribute] for o in outcomes if attribute in o.met]
            )
            for attribute in attributes
        }
        found["measured"] = {
            name: mean_with_interval([o.measured[name] for o in outcomes], seed) for name in known
        }
    figures["change"] = {
        name: mean_with_interval(
            [then.measured[name] - first.measured[name] for first, then in zip(before, after)], seed
        )
        for name in known
    }
    if before[0].judged is not None:
        gaps = [
            (then.reward - first.reward) - (then.judged - first.judged)
            for first, then in zip(before, after)
        ]
        figures["hacking_gap"] = mean_with_interval(gaps, seed)
    return figures
