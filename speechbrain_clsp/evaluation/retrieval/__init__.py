"""Retrieval between speech and captions: exact ranks and their metrics.

:mod:`ranking` ranks in tiles of the similarity matrix, :mod:`metrics` turns ranks into estimates.
"""

from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_estimates, retrieval_metrics
from speechbrain_clsp.evaluation.retrieval.ranking import Ranking, rank_directions, rank_pairs

__all__ = ["Ranking", "rank_directions", "rank_pairs", "retrieval_estimates", "retrieval_metrics"]
