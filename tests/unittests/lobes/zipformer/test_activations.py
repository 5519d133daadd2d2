"""Swoosh and the feed-forward network around it, in blocks, against formulas in float64."""

import pytest
import torch
from torch import nn

from speechbrain_clsp.lobes.zipformer import activations, blocks
from speechbrain_clsp.lobes.zipformer.activations import (
    SwooshL,
    SwooshR,
    feed_forward,
    pointwise,
    swoosh,
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut even small tensors into several blocks, the last one smaller."""
    monkeypatch.setattr(blocks, "PASS_BLOCK", 7)
    monkeypatch.setattr(activations, "PRODUCT_BLOCK", 24)


@pytest.mark.parametrize("kind", [SwooshL, SwooshR])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_swoosh_equals_its_formula_for_small_and_large_values(kind, order):
    x = torch.cat([torch.linspace(-200, 200, 401), torch.tensor([-1e30, -1e4, 1e4, 1e30])])
    x = x.view(-1, 5).permute(order)
    exact = x.double()
    expected = nn.functional.softplus(exact - kind.shift, threshold=1e3)
    expected = expected - 0.08 * exact - kind.offset
    torch.testing.assert_close(kind()(x).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_swoosh_in_low_precision_is_a_rounded_one(dtype):
    x = torch.linspace(-10, 10, 41)
    found = swoosh(x.to(dtype), 4.0, 0.035).float()
    torch.testing.assert_close(found, swoosh(x, 4.0, 0.035), rtol=0, atol=0.04)


@pytest.mark.parametrize("kind", [SwooshL, SwooshR])
def test_gradients_of_swoosh(kind):
    x = 5 * torch.randn(4, 6, dtype=torch.double)
    assert torch.autograd.gradcheck(kind(), x.requires_grad_())


def layers(kind: str) -> tuple[nn.Module, nn.Module]:
    """Return two layers 3 -> 8 -> 5 in float64."""
    if kind == "linear":
        return nn.Linear(3, 8).double(), nn.Linear(8, 5).double()
    return nn.Conv2d(3, 8, 1).double(), nn.Conv2d(8, 5, 1).double()


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_feed_forward_network_equals_its_layers(kind, grad):
    first, second = layers(kind)
    x = torch.randn(2, 5, 3, dtype=torch.double)
    with torch.set_grad_enabled(grad):
        found = feed_forward(x, first, second, SwooshL())
        expected = pointwise(second, SwooshL()(pointwise(first, x)))
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == grad


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("inputs_too", [True, False])
def test_gradients_of_a_feed_forward_network(kind, inputs_too):
    first, second = layers(kind)
    weights = [*first.parameters(), *second.parameters()]
    x = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=inputs_too)

    def run(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return feed_forward(x, first, second, SwooshL())

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_frozen_weights_get_no_gradient():
    first, second = layers("linear")
    first.requires_grad_(False)
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    feed_forward(x, first, second, SwooshL()).sum().backward()
    assert x.grad is not None and second.weight.grad is not None and first.weight.grad is None


def test_hooks_of_layers_are_called():
    first, second = layers("linear")
    seen = []
    second.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    feed_forward(torch.randn(2, 3, dtype=torch.double), first, second, SwooshL())
    assert seen == [(2, 8)]


def test_swoosh_compiles_into_one_graph_for_any_length():
    compiled = torch.compile(SwooshL(), dynamic=True, fullgraph=True, backend="aot_eager")
    for size in (3, 5):
        x = torch.randn(2, size, requires_grad=True)
        found, expected = compiled(x), SwooshL()(x)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(y.sum(), x) for y in (found, expected)]
        torch.testing.assert_close(*grads)
