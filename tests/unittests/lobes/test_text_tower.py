"""Captions in batches of many lengths."""

import pytest
import torch

from speechbrain_clsp.lobes.text_tower import LENGTH_GROUPS, RobertaTextTower, TransformerTextTower

SIZES = {"dim": 16, "n_layers": 1, "heads": 2, "feedforward": 32, "joint_dim": 8}


@pytest.mark.parametrize("tower_type, pad", [(TransformerTextTower, 0), (RobertaTextTower, 1)])
def test_a_caption_has_one_embedding_alone_and_in_a_large_batch(tower_type, pad):
    torch.manual_seed(0)
    tower = tower_type(40, **SIZES).eval()
    lengths = torch.randint(1, 30, (16 * LENGTH_GROUPS + 3,))
    tokens = torch.randint(2, 40, (len(lengths), 30))
    mask = torch.arange(30) >= lengths[:, None]
    tokens = tokens.masked_fill(mask, pad)
    calls = []
    tower.encoder.register_forward_hook(lambda *call: calls.append(1))
    together = tower(tokens, mask)
    assert len(calls) == LENGTH_GROUPS
    alone = [tower(t[None, :n], m[None, :n]) for t, m, n in zip(tokens, mask, lengths)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
