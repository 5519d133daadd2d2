"""Depthwise convolutions against torch's, and their gradients."""

import pytest
import torch
from torch import nn

from speechbrain_clsp.lobes.zipformer import convolution
from speechbrain_clsp.lobes.zipformer.convolution import depthwise_conv

SHAPES = [((3, 5), (2, 4, 6, 3)), ((1, 7), (2, 1, 11, 3)), ((7, 7), (1, 2, 3, 2))]


@pytest.mark.parametrize("kernel, shape", SHAPES)
def test_values_and_gradients_equal_those_of_torch(kernel, shape, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT_BLOCK", 200)  # several blocks, the last one smaller
    channels = shape[-1]
    padding = tuple(size // 2 for size in kernel)
    layer = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels).double()
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    expected = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    found = depthwise_conv(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    inputs = x, layer.weight, layer.bias
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )
    assert torch.autograd.gradcheck(depthwise_conv, inputs)


def test_inputs_without_gradient_and_without_bias():
    weight = torch.ones(2, 1, 1, 3, requires_grad=True)
    for bias in (None, torch.zeros(2, requires_grad=True)):
        depthwise_conv(torch.ones(1, 1, 3, 2), weight, bias).sum().backward()
    assert weight.grad[0].flatten().tolist() == [4.0, 6.0, 4.0]
