"""Attention weights against their formula, and their gradients, in several blocks."""

import pytest
import torch

from speechbrain_clsp.lobes.zipformer import attention
from speechbrain_clsp.lobes.zipformer.attention import attention_weights

BATCH, HEADS, SIZE = 2, 3, 4


@pytest.fixture(params=[1, 2 * SIZE**2, 2**18], autouse=True)
def block(request, monkeypatch):
    """Compute one head at a time, two, and all."""
    monkeypatch.setattr(attention, "SCORES_BLOCK", request.param)


def make_inputs() -> tuple[torch.Tensor, ...]:
    """Return queries, keys, those of positions, and a mask."""
    torch.manual_seed(0)
    shapes = [(BATCH, HEADS, SIZE, 5)] * 2 + [(BATCH, HEADS, SIZE, 2), (HEADS, 2 * SIZE, 2)]
    mask = torch.tensor([[False] * SIZE, [False, False, True, True]])
    return *(torch.randn(s, dtype=torch.double, requires_grad=True) for s in shapes), mask


def formula(query, key, position_query, position_key, mask):
    """Compute the weights query by query and key by key."""
    scores = query @ key.mT
    offset = torch.arange(SIZE) - torch.arange(SIZE)[:, None] + SIZE - 1
    scores = scores + torch.einsum("bhid,hijd->bhij", position_query, position_key[:, offset])
    return scores.masked_fill(mask[:, None, None], -torch.inf).softmax(-1)


@pytest.mark.parametrize("grad", [True, False])
def test_weights_equal_the_formula(grad):
    inputs = make_inputs()
    with torch.set_grad_enabled(grad):
        weights, first = attention_weights(*inputs)
    torch.testing.assert_close(weights, formula(*inputs))
    torch.testing.assert_close(first, weights[:, 0])
    assert weights.requires_grad == first.requires_grad == grad


def test_whole_tensors_give_the_same(monkeypatch):
    inputs = make_inputs()
    expected = attention_weights(*inputs)
    monkeypatch.setattr(attention, "use_blocks", lambda *tensors: False)
    torch.testing.assert_close(attention_weights(*inputs), expected)


def test_gradients():
    *inputs, mask = make_inputs()
    assert torch.autograd.gradcheck(lambda *x: attention_weights(*x, mask), inputs)


def test_gradients_where_only_one_result_is_used():
    *inputs, mask = make_inputs()
    for result in (0, 1):
        found = torch.autograd.grad(attention_weights(*inputs, mask)[result].cos().sum(), inputs)
        weights = formula(*inputs, mask)
        expected = torch.autograd.grad((weights, weights[:, 0])[result].cos().sum(), inputs)
        torch.testing.assert_close(found, expected)
