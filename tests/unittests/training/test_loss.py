"""The training loss against its formula in float64, and misspelled options."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.loss import CLSPLoss

N_CLIPS, SCALE = 5, 7.0
IDS = torch.arange(2 * N_CLIPS).view(2, N_CLIPS)


def unit(*shape: int, seed: int) -> torch.Tensor:
    """Return random unit vectors in float64."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, 6, generator=draw, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def info_nce(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return both directions' mean cross entropy, columns [K, B, D] being K positives of a row."""
    logits = SCALE * torch.einsum("bd,kcd->kbc", rows, columns)
    diagonal = logits.diagonal(dim1=1, dim2=2)
    from_rows = torch.logsumexp(logits.movedim(0, 1).flatten(1), dim=1) - diagonal.mean(dim=0)
    from_columns = torch.logsumexp(logits, dim=1) - diagonal
    return (from_rows.mean() + from_columns.mean()) / 2


def test_the_weighted_terms_equal_their_formula():
    speech, text, negatives = unit(N_CLIPS, seed=0), unit(2, N_CLIPS, seed=1), unit(2, 5, seed=2)
    differ = torch.tensor([[True] * 5, [True, False, True, False, True]])
    weights = {"attribute_weight": 0.3, "caption_attribute_weight": 0.7}
    loss = CLSPLoss(text_weight=0.5, hard_negative_weight=0.2, **weights)
    terms = {"attribute": torch.tensor(1.7), "caption_attribute": torch.tensor(1.9)}
    found = loss(speech, text, torch.tensor(SCALE), IDS, negatives, differ, terms=terms)
    expected = info_nce(speech, text) + 0.5 * info_nce(text[0], text[1:]) + 0.3 * 1.7 + 0.7 * 1.9
    for positive, negative, differs in zip(text, negatives, differ):
        margin = SCALE * (speech * (positive - negative)).sum(dim=1)
        expected = expected + 0.1 * (torch.nn.functional.softplus(-margin) * differs).mean()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_equal_captions_of_other_clips_are_negatives_only_where_not_masked():
    speech, text = unit(N_CLIPS, seed=0), unit(1, N_CLIPS, seed=1)
    text[0, 3] = text[0, 1]
    ids = IDS[:1].clone()
    ids[0, 3] = ids[0, 1]
    masked, plain = (
        CLSPLoss(mask_duplicates=mask)(speech, text, torch.tensor(SCALE), ids)
        for mask in (True, False)
    )
    torch.testing.assert_close(plain, info_nce(speech, text), atol=1e-6, rtol=0)
    assert masked < plain - 1e-3


def test_a_misspelled_option_fails_by_its_name():
    yaml = "loss: !new:speechbrain_clsp.training.loss.CLSPLoss\n    mask_duplicate: True"
    with pytest.raises(Exception, match="mask_duplicate'"):
        load_hyperpyyaml(yaml)
    with pytest.raises(TypeError, match="gradcache_seconds"):
        ContrastiveBrain({}, None, gradcache_seconds=3.0)
