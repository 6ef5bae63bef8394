"""The fast ways to compute a convolution are compared with the plain ones, on random numbers, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from resnet_det.modeling.fused import ONEDNN_DTYPES, Geometry, conv_sum_relu

GEOMETRIES = {
    "1x1": (1, Geometry((1, 1), (0, 0), (1, 1), 1)),
    "1x1 stride": (1, Geometry((2, 2), (0, 0), (1, 1), 1)),
    "3x3": (3, Geometry((1, 1), (1, 1), (1, 1), 1)),
    "3x3 stride": (3, Geometry((2, 2), (1, 1), (1, 1), 1)),
    "3x3 dilated": (3, Geometry((1, 1), (2, 2), (2, 2), 1)),
    "3x3 groups": (3, Geometry((1, 1), (1, 1), (1, 1), 4)),
}


def assert_close(actual, expected, tolerance, what=""):
    """``tolerance`` is a share of the largest value."""
    assert actual.shape == expected.shape, what
    assert (actual.double() - expected.double()).abs().max() <= tolerance * expected.abs().max(), what


def random_tensors(kernel, groups, dtype, *, channels_last=True):
    torch.manual_seed(3)
    x, weight = torch.randn(2, 8, 13, 11), torch.randn(12, 8 // groups, kernel, kernel)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    bias, scale = torch.randn(12), torch.rand(12) + 0.5
    return tuple(tensor.to(dtype) for tensor in (x, weight, bias, scale))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_sum", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_fused_operator_equals_its_parts(name, dtype, with_sum, relu):
    kernel, geometry = GEOMETRIES[name]
    x, weight, bias, scale = random_tensors(kernel, geometry.groups, dtype)
    plain = F.conv2d(x.double(), (weight * scale[:, None, None, None]).double(), bias.double(), *geometry)
    summand = torch.randn_like(plain).to(dtype) if with_sum else None
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)] + ([summand] if with_sum else [])
    if with_sum:
        leaves[-1] = summand.clone().requires_grad_()
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]

    def plain_result():
        out = F.conv2d(doubles[0], doubles[1] * scale.double()[:, None, None, None], doubles[2], *geometry)
        out = out + doubles[3] if with_sum else out
        return F.relu(out) if relu else out

    out = conv_sum_relu(*leaves[:3], geometry, scale=scale, summand=leaves[3] if with_sum else None, relu=relu)
    expected = plain_result()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    assert out.dtype == dtype
    assert_close(out, expected, tolerance)
    upstream = torch.randn(out.shape)
    # ReLU's derivative turns where rounding moves a number over zero: those places do not count.
    upstream = torch.where((out > 0) == (expected > 0), upstream, 0) if relu else upstream
    gradients = torch.autograd.grad(out, leaves, upstream.to(dtype))
    for actual, wanted in zip(
        gradients, torch.autograd.grad(expected, doubles, upstream.to(dtype).double()), strict=True
    ):
        assert_close(actual, wanted, tolerance)


@pytest.mark.parametrize("channels_last", [True, False])
def test_overwriting_gives_the_same_and_writes_where_the_summand_was(channels_last):
    x, weight, bias, scale = random_tensors(3, 1, torch.float32, channels_last=channels_last)
    geometry = GEOMETRIES["3x3"][1]
    summand = torch.randn(2, 12, 13, 11).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = conv_sum_relu(x, weight, bias, geometry, scale=scale, summand=summand, relu=True)
        before = summand.clone()
        conv_sum_relu(x, weight, bias, geometry, scale=scale, summand=summand, relu=True)
        assert torch.equal(summand, before)
        out = conv_sum_relu(x, weight, bias, geometry, scale=scale, summand=summand, relu=True, overwrite=True)
    assert_close(out, expected, 1e-6)
    if torch.float32 in ONEDNN_DTYPES:
        assert out.data_ptr() == summand.data_ptr()


def test_it_has_second_gradients():
    x, weight, bias, scale = random_tensors(3, 1, torch.float64)
    summand = torch.randn(2, 12, 13, 11, dtype=torch.float64)
    leaves = [tensor[:1, ..., :3, :3].clone() if tensor.dim() == 4 else tensor for tensor in (x, weight, bias, summand)]
    leaves[1] = weight
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def run(x, weight, bias, summand):
        return conv_sum_relu(x, weight, bias, GEOMETRIES["3x3"][1], scale=scale, summand=summand, relu=True)

    assert torch.autograd.gradgradcheck(run, leaves)


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(RuntimeError, match="to have 8 channels, but got 6 channels"):
        conv_sum_relu(torch.randn(1, 6, 8, 8), torch.randn(12, 8, 3, 3), None, GEOMETRIES["3x3"][1], relu=True)
