"""Pooling with moments over time."""

import pytest
import torch
from numpy.polynomial.legendre import Legendre
from torch import nn

from speechbrain_clsp.lobes.pooling import MomentPooling, legendre_weights, untrained_moments
from speechbrain_clsp.nnet.masking import masked_mean, padding_mask

COUNTS = torch.tensor([50, 7, 1])


def frames(dim=8):
    torch.manual_seed(0)
    return torch.randn(len(COUNTS), 50, dim), padding_mask(COUNTS, 50)


def test_moments_are_legendre_coefficients():
    """Coefficients of a polynomial of degree 2, sampled at 2,000 points, as numpy defines them."""
    mask = torch.zeros(1, 2000, dtype=torch.bool)
    time = (2 * torch.arange(2000).double() + 1) / 2000 - 1
    values = torch.from_numpy(Legendre([0.3, -1.5, 0.7])(time.numpy()))
    found = [(weights[0] * values).sum().item() for weights in legendre_weights(mask, 3)]
    assert found == pytest.approx([-1.5, 0.7, 0.0], abs=1e-5)


def test_constant_frames_have_no_moments():
    for weights in legendre_weights(padding_mask(COUNTS, 50), 3):
        assert weights.sum(dim=1).abs().max() < 1e-12


def test_moments_do_not_depend_on_padding_or_on_other_clips():
    x, mask = frames()
    pooling = MomentPooling(8, moments=2, gain=1.0)
    for i, n_frames in enumerate(COUNTS.tolist()):
        alone = pooling(x[i : i + 1, :n_frames], mask[i : i + 1, :n_frames])
        torch.testing.assert_close(alone[0], pooling(x, mask)[i], atol=1e-6, rtol=0)


def test_reversed_frames_change_the_first_moment_only():
    x, mask = torch.randn(2, 50, 8), torch.zeros(2, 50, dtype=torch.bool)
    first, second = (MomentPooling(8, moments=n, gain=1.0).requires_grad_(False) for n in (1, 2))
    nn.init.zeros_(second.maps[0].weight)
    assert (first(x, mask) - first(x.flip(1), mask)).abs().max() > 0.1
    torch.testing.assert_close(second(x, mask), second(x.flip(1), mask), atol=1e-5, rtol=0)


def test_untrained_moments_give_the_mean_bit_for_bit():
    x, mask = frames()
    assert torch.equal(MomentPooling(8, moments=2)(x, mask), masked_mean(x, mask))
    assert not MomentPooling(8).state_dict()


def test_moments_that_start_at_zero_get_gradients():
    x, mask = frames()
    pooling = MomentPooling(8, moments=2)
    pooling(x, mask).square().sum().backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in pooling.maps)


def test_untrained_moments_have_the_names_of_the_state_dict():
    modules = {
        "tower": nn.ModuleDict({"pooling": MomentPooling(4, moments=2), "a": nn.Linear(2, 2)})
    }
    names = [f"tower.{key}" for key in modules["tower"].state_dict() if "pooling" in key]
    assert list(untrained_moments(modules)) == names
