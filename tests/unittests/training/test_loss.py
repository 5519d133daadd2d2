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
    loss = CLSPLoss(text_weight=0.5, hard_negative_weight=0.2, attribute_weight=0.3)
    found = loss(
        speech, text, torch.tensor(SCALE), IDS, negatives, differ, torch.tensor(1.7).double()
    )
    expected = info_nce(speech, text) + 0.5 * info_nce(text[0], text[1:]) + 0.3 * 1.7
    for positive, negative, differs in zip(text, negatives, differ):
        margin = SCALE * (speech * (positive - negative)).sum(dim=1)
        expected = expected + 0.1 * (torch.nn.functional.softplus(-margin) * differs).mean()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tile", [None, 2])
def test_each_caption_chooses_between_its_clip_and_the_nearest_false_one(tile):
    speech, text = unit(N_CLIPS, seed=3), unit(2, N_CLIPS, seed=4)
    ids = IDS.clone()
    ids[1, 4] = ids[0, 2]  # clip 4 has the first caption of clip 2, too, for which it is not false
    loss = CLSPLoss(hard_clip_weight=0.6, mask_duplicates=True, tile=tile)
    contrastive = CLSPLoss(mask_duplicates=True)(speech, text, torch.tensor(SCALE), ids)
    expected = 0.0
    for captions, own_ids in zip(text, ids):
        for clip, caption in enumerate(captions):
            false = [n for n in range(N_CLIPS) if n != clip and own_ids[clip] not in ids[:, n]]
            margin = caption @ speech[clip] - max(caption @ speech[n] for n in false)
            expected += 0.6 * torch.nn.functional.softplus(-SCALE * margin) / (2 * N_CLIPS)
    found = loss(speech, text, torch.tensor(SCALE), ids)
    torch.testing.assert_close(found - contrastive, expected, atol=1e-6, rtol=0)


def test_a_batch_of_one_clip_has_no_false_clip():
    speech, text = unit(1, seed=3), unit(2, 1, seed=4)
    losses = [
        CLSPLoss(hard_clip_weight=weight)(speech, text, torch.tensor(SCALE), IDS[:, :1])
        for weight in (0.0, 0.6)
    ]
    assert losses[0] == losses[1] and losses[1].isfinite()


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
