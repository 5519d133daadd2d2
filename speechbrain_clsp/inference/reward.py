"""CLSP as a reward: how well speech fits a description of its style, for training and ranking."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.captions.perturbation import AttributeSwap, read_tables
from speechbrain_clsp.dataio.audio import MAXIMUM_RATE, MINIMUM_RATE, SAMPLE_RATE
from speechbrain_clsp.dataio.resample import resample
from speechbrain_clsp.inference.attributes import (
    Attributes,
    check_requirements,
    read_attributes,
    tell_attributes,
)
from speechbrain_clsp.inference.checks import (
    MINIMUM_SAMPLES,
    check_numbers,
    check_wav_lens,
    check_wavs,
    find_not_finite,
    find_unusable,
)
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.guards import check_passes, name_guards
from speechbrain_clsp.utils.checks import as_list, check_texts, quote

SCALINGS = ("cosine", "margin", "group", "improvement")
CACHED_CONTRASTS = 20_000  # captions; beyond, all are dropped
SMALLEST_DEVIATION = 1e-3  # of cosines within a group; less is noise, not to be blown up
SWAP_TRIES = 20  # per contrast caption


@dataclass(frozen=True)
class RewardParts:
    """A reward and its parts.

    The parts are ``cosine`` with the caption, ``contrast`` (highest cosine with captions made
    false) where it was needed, and ``style``, the scaled value. They are NaN for a clip that could
    not be embedded.
    """

    total: Tensor  # [B], the reward
    parts: dict[str, Tensor]  # [B] each
    passed: dict[str, Tensor]  # [B] bool for each guard and each required attribute
    reasons: tuple[str, ...] = ()  # B, why a clip got the veto; "" if it did not


@dataclass(eq=False)
class StyleReward:
    """Rewards speech for its style, differentiable in the waveform.

    Weights are frozen; a graph is built only if ``wavs`` require gradients. A clip that cannot be
    embedded (with NaN samples, too short, without samples) gets ``veto``, without gradients, and
    does not count in its group; others are not affected. Raw cosines lie in a narrow band, so that
    most uses want another scaling:

    - ``cosine``: the cosine of speech and caption;
    - ``margin``: the cosine less the highest one with perturbed captions, which differ from the
      asked one in one attribute: positive where the asked style is nearest;
    - ``group``: the cosine less the mean of its group, over its standard deviation (as in GRPO);
    - ``improvement``: tanh of (the cosine less a baseline's) / ``improvement_scale``.

    Arguments
    ---------
    clsp : CLSP
        The model.
    scaling : str
        One of the above.
    guards : sequence of callable
        See :mod:`speechbrain_clsp.inference.guards`. A clip that fails one gets ``veto``, without
        gradients.
    sample_rate : int
        Of ``wavs``, Hz.
    swap : callable, optional
        (caption, random.Random) -> caption that is false in one attribute, for ``margin``;
        default: :class:`~speechbrain_clsp.captions.perturbation.AttributeSwap` with all of
        ParaSpeechCaps' attributes.
    n_contrasts : int
        Perturbed captions per caption.
    improvement_scale : float
        Gain in cosine that ``improvement`` maps to tanh(1) = 0.76.
    weight : float
        What the scaled value is multiplied with.
    veto : float
        Reward of a clip that failed a guard.
    require : dict, optional
        Values that attributes must have, such as ``{"gender": "female"}``: a clip to which the
        prompts of another value are nearer gets ``veto``. Words of a caption about pitch can
        outweigh those about gender, so a filter beside the score is safer than the caption alone.
    attributes : dict, optional
        Prompts by attribute and value, for ``require``; default: those of
        :func:`~speechbrain_clsp.inference.attributes.read_attributes`.
    on_caption : str
        What happens with a caption that cannot be used (empty, too long, or for ``margin`` without
        an attribute to swap): ``raise``, or ``veto``, which rejects its clip alone.

    Raises
    ------
    TypeError, ValueError
        If the scaling is unknown, or another argument cannot be used.

    Example
    -------
    >>> clsp = CLSP.from_pretrained("results/mini/model")  # doctest: +SKIP
    >>> reward = StyleReward(clsp, scaling="margin", sample_rate=22050)  # doctest: +SKIP
    >>> reward(wavs, ["A man whispers."] * len(wavs)).mean().backward()  # doctest: +SKIP
    """

    clsp: CLSP
    scaling: str = "cosine"
    guards: Sequence[Callable[..., Tensor]] = ()
    sample_rate: int = SAMPLE_RATE
    swap: Callable[[str, random.Random], str] | None = None
    n_contrasts: int = 8
    improvement_scale: float = 0.1
    weight: float = 1.0
    veto: float = -1.0
    require: Mapping[str, str] | None = None
    attributes: Attributes | None = None
    on_caption: str = "raise"

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {list(SCALINGS)}, not {self.scaling!r}")
        if not hasattr(self.clsp, "embed"):
            raise TypeError(
                f"clsp must be a model, as CLSP.from_pretrained gives it, not {quote(self.clsp)}"
            )
        self.guards = as_list(self.guards, "guards", "guards")
        for guard in self.guards:
            if isinstance(guard, type):
                raise TypeError(f"guards must be objects; {guard.__name__} is a class: call it")
            if not callable(guard):
                raise TypeError(f"guards must be callable; {guard!r} is not")
        self._check_numbers()
        if self.on_caption not in ("raise", "veto"):
            raise ValueError(f"on_caption must be 'raise' or 'veto', not {self.on_caption!r}")
        self._attributes = self.attributes or read_attributes()
        self._require = check_requirements(self.require, self._attributes)
        self._swap = self.swap or AttributeSwap(read_tables)
        self._contrasts: dict[str, list[str]] = {}

    def _check_numbers(self) -> None:
        for name in ("sample_rate", "n_contrasts", "improvement_scale", "weight", "veto"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not math.isfinite(value):
                raise TypeError(f"{name} must be a finite number, not {quote(value)}")
        if not MINIMUM_RATE <= self.sample_rate <= MAXIMUM_RATE:
            raise ValueError(
                f"sample_rate must be {MINIMUM_RATE} to {MAXIMUM_RATE} Hz, not {self.sample_rate}"
            )
        if not (self.n_contrasts >= 1 and self.improvement_scale > 0):
            raise ValueError(
                "n_contrasts must be at least 1 and improvement_scale positive, not"
                f" {self.n_contrasts} and {self.improvement_scale}"
            )

    def __call__(
        self, wavs: Tensor, captions: Sequence[str], wav_lens: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Return rewards [B]; see :meth:`explain`."""
        return self.explain(wavs, captions, wav_lens, **options).total

    def explain(
        self,
        wavs: Tensor,
        captions: Sequence[str],
        wav_lens: Tensor | None = None,
        texts: Sequence[str] | None = None,
        groups: Sequence | None = None,
        baseline: Tensor | None = None,
    ) -> RewardParts:
        """Reward clips, and return the parts of the rewards.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float at ``sample_rate``, in [-1, 1], zero padded.
        captions : sequence of str
            B descriptions of the wanted style.
        wav_lens : Tensor, optional
            [B] relative to T; default: no padding.
        texts : sequence of str, optional
            What the clips should say, for guards that compare words.
        groups : sequence, optional
            B labels for ``group``; default: clips with the same caption.
        baseline : Tensor, optional
            [B] cosines to improve on, for ``improvement``.

        Raises
        ------
        TypeError, ValueError
            If numbers of clips, captions, texts, groups or baselines differ; if samples are not
            floating-point or lengths not relative; if a baseline is missing or NaN; or if a guard
            does not give one bool per clip. Never for what a clip contains.
        """
        captions, bad_captions = self._usable_captions(captions)
        n_clips = len(captions)
        wavs = check_wavs(wavs)
        if wavs.dim() != 2 or len(wavs) != n_clips:
            raise ValueError(f"{n_clips} captions for wavs of shape {list(wavs.shape)}")
        if texts is not None:
            texts = check_texts(texts, "texts", allow_empty=True)
            if len(texts) != n_clips:
                raise ValueError(f"{len(texts)} texts for {n_clips} clips")
        wavs, wav_lens, faults = self._usable(wavs, wav_lens)
        faults = [fault or bad_captions.get(row, "") for row, fault in enumerate(faults)]
        speech = self.clsp.embed(wavs, wav_lens)
        for row in find_not_finite(speech):
            faults[row] = faults[row] or "its embedding is NaN or infinite"
        usable = torch.tensor([not fault for fault in faults], device=speech.device)
        parts = {"cosine": (speech * self.clsp.encode_text(captions).to(speech.dtype)).sum(dim=1)}
        if self.scaling == "margin":
            parts["contrast"] = self._contrast(speech, captions)
        labels = _group_labels(captions if groups is None else groups, faults)
        parts["style"] = self.weight * self._scaled(parts, labels, baseline)
        total, reasons = parts["style"], list(faults)
        passed = self._meet(speech.detach(), reasons, usable)
        for name, guard in name_guards(self.guards).items():
            # Copies: one that normalizes in place would change what the next ones and users have.
            given = wavs.detach().clone(), wav_lens.clone(), [*captions], texts and [*texts]
            passes = check_passes(guard(*given), name, wavs)
            passed[name] = passes & usable.to(passes.device)
            for row, passes_it in enumerate(passed[name].tolist()):
                if not (passes_it or faults[row]):
                    reasons[row] += f"{'; ' if reasons[row] else ''}fails the guard {name}"
        vetoed = torch.tensor([bool(reason) for reason in reasons], device=total.device)
        total = torch.where(vetoed, torch.full_like(total, self.veto), total)
        parts = {name: each.masked_fill(~usable, torch.nan) for name, each in parts.items()}
        return RewardParts(total, parts, passed, tuple(reasons))

    def _usable_captions(self, captions: Any) -> tuple[list[str], dict[int, str]]:
        """Return captions, with others for those that cannot be used, and why by their rows."""
        if self.on_caption == "raise":
            return check_texts(captions, "captions"), {}
        captions, faults = as_list(captions, "captions", "captions"), {}
        try:
            self._check_captions(captions)
        except (TypeError, ValueError):  # of one of them
            for row, caption in enumerate(captions):
                try:
                    self._check_captions([caption])
                except (TypeError, ValueError) as error:
                    reason = str(error).replace("texts[0]", "it").replace("captions[0]", "it")
                    faults[row] = f"its caption cannot be used: {reason}"
        good = [caption for row, caption in enumerate(captions) if row not in faults]
        if captions and not good:
            raise ValueError(f"No caption can be used; the first: {faults[0]}")
        return [good[0] if row in faults else one for row, one in enumerate(captions)], faults

    def _check_captions(self, captions: list) -> None:
        texts = check_texts(captions, "captions")
        self.clsp.encode_text(texts)
        if self.scaling == "margin":
            for caption in texts:
                self.contrasts(caption)

    def _meet(self, speech: Tensor, reasons: list[str], usable: Tensor) -> dict[str, Tensor]:
        """Return whether clips have the required attributes, and add to the reasons."""
        passed = {}
        told = tell_attributes(speech, list(self._require), self.clsp.encode_text, self._attributes)
        for name, values in told.items():
            wanted = self._require[name]
            right = torch.tensor([value == wanted for value in values], device=usable.device)
            passed[name] = right & usable
            for row, value in enumerate(values):
                if usable[row] and value != wanted:
                    start = f"{reasons[row]}; " if reasons[row] else ""
                    reasons[row] = f"{start}its {name} is {value}, not {wanted}"
        return passed

    def _usable(self, wavs: Tensor, wav_lens: Any) -> tuple[Tensor, Tensor, list[str]]:
        """Return clips at 16 kHz, with silence for those that cannot be embedded, and why."""
        wav_lens = check_wav_lens(wav_lens, wavs)
        # Before, since resampling makes other numbers of 16-bit values; after, since it rounds.
        faults = find_unusable(wavs, wav_lens, self.sample_rate)
        wavs = resample(_silence(wavs, faults), self.sample_rate, SAMPLE_RATE)
        faults = [before or after for before, after in zip(faults, find_unusable(wavs, wav_lens))]
        if any(faults):
            wavs, wav_lens = _silence(wavs, faults), wav_lens.masked_fill(_marks(faults, wavs), 1.0)
            absent = max(0, MINIMUM_SAMPLES - wavs.shape[1])  # then no clip is usable
            wavs = torch.nn.functional.pad(wavs, (0, absent))
        return wavs, wav_lens, faults

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embed captions, each once; returns [N, D]."""
        return self.clsp.encode_text(captions)

    def contrasts(self, caption: str) -> list[str]:
        """Return the perturbed captions that a caption is compared with, always the same ones.

        Raises
        ------
        ValueError
            If the caption names no attribute that could be swapped.
        """
        found = self._contrasts.get(caption)
        if found is None:
            draw = random.Random(caption)
            swapped: dict[str, None] = {}
            for _ in range(SWAP_TRIES * self.n_contrasts):
                swapped[self._swap(caption, draw)] = None
                swapped.pop(caption, None)
                if len(swapped) == self.n_contrasts:
                    break
            if not swapped:
                raise ValueError(
                    f"No attribute of {caption!r} can be swapped: give swap, or another scaling"
                )
            if len(self._contrasts) >= CACHED_CONTRASTS:
                self._contrasts.clear()
            found = self._contrasts[caption] = list(swapped)
        return found

    def _contrast(self, speech: Tensor, captions: Sequence[str]) -> Tensor:
        highest = [
            (self.clsp.encode_text(self.contrasts(caption)).to(one.dtype) @ one).max()
            for one, caption in zip(speech, captions)
        ]
        return torch.stack(highest)

    def _scaled(
        self,
        parts: dict[str, Tensor],
        groups: Sequence,
        baseline: Any,
    ) -> Tensor:
        cosine = parts["cosine"]
        if self.scaling == "cosine":
            return cosine
        if self.scaling == "margin":
            return cosine - parts["contrast"]
        if self.scaling == "group":
            return within_groups(cosine, groups)
        if baseline is None:
            raise ValueError("scaling 'improvement' needs a baseline, the cosines to improve on")
        baseline = check_numbers(baseline, "baseline", len(cosine)).to(cosine)
        if not baseline.isfinite().all():
            raise ValueError(f"baseline must be numbers, not {baseline.tolist()}")
        return torch.tanh((cosine - baseline) / self.improvement_scale)


def _marks(faults: Sequence[str], like: Tensor) -> Tensor:
    """Return [B] bool, True for a clip with a fault."""
    return torch.tensor([bool(fault) for fault in faults], device=like.device)


def _silence(wavs: Tensor, faults: Sequence[str]) -> Tensor:
    """Return clips [B, T] with zeros for those that have a fault."""
    return wavs.masked_fill(_marks(faults, wavs)[:, None], 0.0) if any(faults) else wavs


def _group_labels(groups: Any, faults: Sequence[str]) -> list[Any]:
    """Return clips' labels as a list; one that cannot be embedded gets a label of its own."""
    if isinstance(groups, Tensor | np.ndarray):
        groups = groups.tolist()  # tensors of equal value are different keys
    groups = as_list(groups, "groups", f"{len(faults)} labels")
    if len(groups) != len(faults):
        raise ValueError(f"{len(groups)} groups for {len(faults)} clips")
    labels = [_group_label(label, f"groups[{n}]") for n, label in enumerate(groups)]
    return [("unusable", n) if fault else labels[n] for n, fault in enumerate(faults)]


def _group_label(label: Any, name: str) -> Any:
    """Return a clip's label, equal for equal ones: a tensor is another key than its equals."""
    if isinstance(label, Tensor | np.ndarray):
        label = label.tolist()
    label = tuple(label) if isinstance(label, list) else label
    try:
        hash(label)
    except TypeError as error:
        raise TypeError(f"{name} must be a str or a number, not {quote(label)}") from error
    if label != label:
        raise ValueError(f"{name} is NaN, not a label: name the group of each clip")
    return label


def within_groups(values: Tensor, groups: Sequence) -> Tensor:
    """Return values [B] less the mean of those with the same label, over its standard deviation.

    Both are constants for gradients; a group of one gives 0.

    Example
    -------
    >>> within_groups(torch.tensor([1.0, 3.0, 5.0]), ["a", "a", "b"]).tolist()
    [-1.0, 1.0, 0.0]
    """
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups for {len(values)} clips")
    numbers = {label: n for n, label in enumerate(dict.fromkeys(groups))}
    index = torch.tensor([numbers[label] for label in groups], device=values.device)
    member = torch.nn.functional.one_hot(index).double()  # differences are small beside values
    counts = member.sum(dim=0)
    fixed = values.detach().double()
    mean = (fixed @ member / counts)[index]
    deviation = ((fixed - mean).square() @ member / counts).sqrt()[index]
    return ((values - mean) / deviation.clamp_min(SMALLEST_DEVIATION)).to(values.dtype)
