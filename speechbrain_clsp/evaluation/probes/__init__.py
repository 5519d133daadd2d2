"""Probes: minimal pairs that show whether a model knows one thing, such as the order of a change.

:mod:`pairs` reads and writes pairs, :mod:`making` makes them from captions, and :mod:`scoring`
scores a model on them.
"""

from speechbrain_clsp.evaluation.probes.making import make_pairs
from speechbrain_clsp.evaluation.probes.pairs import (
    KINDS,
    SIDES,
    ProbePair,
    read_pairs,
    write_pairs,
)
from speechbrain_clsp.evaluation.probes.scoring import ProbeScores, run_probes, score_pairs

__all__ = [
    "KINDS",
    "SIDES",
    "ProbePair",
    "ProbeScores",
    "make_pairs",
    "read_pairs",
    "run_probes",
    "score_pairs",
    "write_pairs",
]
