"""Pooling with moments over time."""

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import Legendre
from torch import nn

from speechbrain_clsp.lobes.pooling import (
    MomentPooling,
    SpectralVariation,
    legendre_weights,
    untrained_additions,
)
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


def test_untrained_additions_give_the_mean_bit_for_bit():
    x, mask = frames()
    assert torch.equal(MomentPooling(8, moments=2)(x, mask), masked_mean(x, mask))
    assert not MomentPooling(8).state_dict()


def test_moments_that_start_at_zero_get_gradients():
    x, mask = frames()
    pooling = MomentPooling(8, moments=2)
    pooling(x, mask).square().sum().backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in pooling.maps)


def test_untrained_additions_have_the_names_of_the_state_dict():
    modules = {
        "tower": nn.ModuleDict({"pooling": MomentPooling(4, moments=2), "a": nn.Linear(2, 2)})
    }
    names = [f"tower.{key}" for key in modules["tower"].state_dict() if "pooling" in key]
    assert list(untrained_additions(modules)) == names


def test_spectral_variation_is_deviations_and_moments_of_slopes_against_numpy():
    x, mask = frames()
    variation = SpectralVariation(8, 21, moments=2, gain=1.0)
    nn.init.eye_(variation.map.weight)
    for i, n_frames in enumerate(COUNTS.tolist()):
        slopes = np.diff(x[i, :n_frames].double().numpy(), axis=1)
        deviations = slopes.std(axis=0)
        normalized = (deviations - deviations.mean()) / max(deviations.std(), 1e-5**0.5)
        weights = [w[i, :n_frames].numpy() for w in legendre_weights(mask, 2)]
        expected = np.concatenate([normalized, *(w @ slopes for w in weights)])
        np.testing.assert_allclose(variation(x, mask)[i].detach(), expected, atol=1e-3)


def test_spectral_variation_hears_no_gain_of_the_bins_and_no_padding():
    x, mask = frames()
    variation = SpectralVariation(8, 16, moments=2, gain=1.0)
    torch.testing.assert_close(variation(x + torch.randn(8), mask), variation(x, mask))
    torch.testing.assert_close(variation(x[1:2, :7], mask[1:2, :7])[0], variation(x, mask)[1])


def test_spectral_variation_starts_at_nothing_and_has_finite_gradients_on_silence():
    x, mask = torch.zeros(2, 50, 8, requires_grad=True), torch.zeros(2, 50, dtype=torch.bool)
    variation = SpectralVariation(8, 16, moments=2)
    assert torch.equal(variation(torch.randn(2, 50, 8), mask), torch.zeros(2, 16))
    nn.init.ones_(variation.map.weight)
    variation(x, mask).square().sum().backward()
    assert x.grad.isfinite().all()
