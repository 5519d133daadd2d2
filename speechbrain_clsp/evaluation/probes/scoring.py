"""Scores of a model on minimal pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from speechbrain_clsp.evaluation.clips import whole_files
from speechbrain_clsp.evaluation.models import CachedModel, Model
from speechbrain_clsp.evaluation.probes.making import make_pairs
from speechbrain_clsp.evaluation.probes.pairs import KINDS, ProbePair
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_strata

CHANCE = 0.5
TIE = 1e-6  # cosines that float32 cannot tell apart


@dataclass(frozen=True)
class ProbeScores:
    """What a model gives to N pairs.

    Arguments
    ---------
    pairs : list of ProbePair
        The pairs.
    true, false : numpy.ndarray
        [N] float64, cosines of the anchor with the true and with the false one.

    Example
    -------
    >>> pairs = [ProbePair("order", name, "texts", "a", "b", "c") for name in ("rate", "pitch")]
    >>> scores = ProbeScores(pairs, np.array([0.9, 0.9]), np.array([0.4, 0.9]))
    >>> {name: estimate.value for name, estimate in scores.accuracies().items()}
    {'order': 0.5, 'order: rate, texts': 1.0, 'order: pitch, texts': 0.0}
    """

    pairs: list[ProbePair]
    true: np.ndarray
    false: np.ndarray

    @property
    def margins(self) -> np.ndarray:
        """By how much the true one's cosine is greater, [N]."""
        return self.true - self.false

    @property
    def hits(self) -> np.ndarray:
        """1 where the true one scores higher, else 0, [N]; ties are 0."""
        return (self.margins > TIE).astype(float)

    def accuracies(self, seed: int = 0) -> dict[str, Estimate]:
        """Return how often the true one scores higher, with 95 % bootstrap intervals.

        There is one for each kind, which is the mean over its attributes and sides, and one for
        each of these, such as ``order: rate, captions``. ``seed`` is that of the bootstrap.
        """
        return self._means(self.hits, seed, CHANCE)

    def margins_of(self, seed: int = 0) -> dict[str, Estimate]:
        """Return the mean margins for the same names."""
        return self._means(self.margins, seed, None)

    def counts(self) -> dict[str, int]:
        """Return the numbers of pairs for the same names."""
        return {name: len(members) for name, members in self.groups()}

    def groups(self) -> Iterator[tuple[str, list[int]]]:
        """Yield each kind and then its groups, with the numbers of their pairs."""
        kinds: dict[str, dict[str, list[int]]] = {kind: {} for kind in KINDS}
        for number, pair in enumerate(self.pairs):
            kinds[pair.kind].setdefault(pair.group, []).append(number)
        for kind, groups in kinds.items():
            if groups:
                yield kind, [number for members in groups.values() for number in members]
                yield from groups.items()

    def _means(self, values: np.ndarray, seed: int, chance: float | None) -> dict[str, Estimate]:
        found = {}
        for name, members in self.groups():
            strata = np.unique([self.pairs[i].group for i in members], return_inverse=True)[1]
            mean, low, high = bootstrap_strata(values[members], strata, seed)
            found[name] = Estimate(mean, low, high, chance)
        return found


def score_pairs(
    model: Model, rows: Sequence[Mapping[str, Any]], pairs: Sequence[ProbePair]
) -> ProbeScores:
    """Score a model on pairs of a manifest's clips; no clip or caption is embedded twice.

    Raises
    ------
    ValueError
        If a pair names a clip that ``rows`` lack.
    """
    wanted = {clip for pair in pairs for clip in pair.clips}
    used = [row for row in rows if row["id"] in wanted]
    absent = sorted(wanted - {row["id"] for row in used})
    if absent:
        raise ValueError(f"The manifest lacks {len(absent)} clips of the pairs: {absent[:3]}")
    if not pairs:
        return ProbeScores([], np.zeros(0), np.zeros(0))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair.texts))
    speech = {}
    if used:
        with whole_files(used) as files:
            vectors = model.encode_files([file["audio"] for file in files])
        speech = {row["id"]: vector for row, vector in zip(used, vectors)}
    text = dict(zip(texts, model.encode_text(texts)))

    def cosine(one: Tensor, two: Tensor) -> float:
        return float(one.double() @ two.double())

    scores = []
    for pair in pairs:
        anchors = speech if pair.side == "captions" else text
        answers = speech if pair.side == "clips" else text
        anchor = anchors[pair.anchor]
        scores.append([cosine(anchor, answers[name]) for name in (pair.true, pair.false)])
    true, false = np.array(scores).T
    return ProbeScores(list(pairs), true, false)


def run_probes(
    model: Model, manifest: Sequence[Mapping[str, Any]], pairs: Sequence[ProbePair] | None = None
) -> ProbeScores:
    """Probe a model.

    Arguments
    ---------
    model : Model
        See :class:`~speechbrain_clsp.evaluation.models.base.Model`.
    manifest : Manifest, or list of rows
        The clips.
    pairs : list of ProbePair, optional
        As :func:`~speechbrain_clsp.evaluation.probes.pairs.read_pairs` reads them. Default: made
        from the clips' captions, see
        :func:`~speechbrain_clsp.evaluation.probes.making.make_pairs`.

    Returns
    -------
    ProbeScores
        Hits and margins, pair by pair.

    Example
    -------
    >>> from speechbrain_clsp.evaluation.models import open_model
    >>> caption = "She speaks slowly. Her voice is deep."
    >>> row = {"id": "a", "global_captions": [caption], "fine_captions": []}
    >>> pair = ProbePair("order", "rate", "texts", "A man.", "One man.", "A woman.")
    >>> run_probes(open_model("random"), [row], [pair]).hits.shape
    (1,)
    """
    rows = list(manifest)
    cached = model if isinstance(model, CachedModel) else CachedModel(model)
    return score_pairs(cached, rows, make_pairs(rows) if pairs is None else pairs)
