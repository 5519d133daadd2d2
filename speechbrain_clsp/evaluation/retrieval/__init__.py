"""Retrieval between speech and captions: exact ranks, their metrics, and corrections for hubs.

:mod:`ranking` and :mod:`counting` rank in tiles of the similarity matrix, :mod:`metrics` turns
ranks into estimates, :mod:`hubness` holds corrections that the paper does not use.
"""

from speechbrain_clsp.evaluation.retrieval.hubness import dual_softmax_ranks, querybank_ranks
from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_estimates, retrieval_metrics
from speechbrain_clsp.evaluation.retrieval.ranking import Ranking, rank_both, rank_pairs

__all__ = [
    "Ranking",
    "dual_softmax_ranks",
    "querybank_ranks",
    "rank_both",
    "rank_pairs",
    "retrieval_estimates",
    "retrieval_metrics",
]
