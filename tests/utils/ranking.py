"""Embeddings and brute-force ranks for tests of retrieval."""

import numpy as np
import torch


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random unit vectors."""
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draw), dim=-1)


def brute_force(scores: np.ndarray, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Rank pairs by looking at one item after the other; scores are float64."""
    ranks = {}
    for query, item in pairs:
        own = [g for q, g in pairs if q == query]
        rank = 1
        for other, score in enumerate(scores[query]):
            ahead = score > scores[query, item] or (other < item and score == scores[query, item])
            wrong = other not in own and score >= scores[query, item]
            rank += wrong or (other in own and ahead)
        ranks[query, item] = rank
    return ranks


def noisy_pairs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return 40 clips, 60 captions and 90 pairs; dyadic values, so that ties are exact."""
    draw = torch.Generator().manual_seed(seed)
    speech = torch.randint(-2, 3, (40, 6), generator=draw) / 4.0
    text = torch.randint(-2, 3, (60, 6), generator=draw) / 4.0
    pairs = {(i, i) for i in range(40)} | {(i % 40, i) for i in range(60)}
    extra = torch.randint(0, 40, (30, 2), generator=draw).tolist()
    return speech, text, torch.tensor(sorted(pairs | {tuple(pair) for pair in extra}))
