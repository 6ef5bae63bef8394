"""The fast ways to compute a convolution are compared with the plain ones, on random numbers, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from resnet_det.modeling import winograd
from resnet_det.modeling.fused import ONEDNN_DTYPES, Geometry, conv_sum_relu
from resnet_det.modeling.layers import ConvNormAct

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


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 13, 11), (3, 5, 30), (1, 60, 70), (1, 1, 1)])
def test_winograd_equals_the_plain_convolution(shape):
    torch.manual_seed(4)
    batch, height, width = shape
    leaves = [torch.randn(batch, 6, height, width), torch.randn(5, 6, 3, 3), torch.randn(5)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = F.conv2d(*doubles, padding=1)
    out = winograd.conv3x3(*leaves)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_close(out, expected, 3e-5)
    with torch.no_grad():
        kept = winograd.conv3x3(*leaves, transformed=winograd.transform_weight(leaves[1]))
    assert torch.equal(kept, out)
    upstream = torch.randn(out.shape)
    wanted = torch.autograd.grad(expected, doubles, upstream.double())
    for actual, gradient in zip(torch.autograd.grad(out, leaves, upstream), wanted, strict=True):
        assert_close(actual, gradient, 3e-5)


def test_winograd_stands_aside_where_it_is_slower_or_not_made_for():
    image, few = torch.randn(1, 128, 50, 50), torch.randn(1, 128, 8, 8)
    assert winograd.takes_winograd(image, None)
    assert not winograd.takes_winograd(few, None)
    assert winograd.takes_winograd(few, torch.randn(36, 128, 128))
    assert not winograd.takes_winograd(image.double(), None)
    assert not winograd.takes_winograd(image[:0], torch.randn(36, 128, 128))
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.takes_winograd(image, None)
    for kernel, stride, channels, expected in ((3, 1, 128, True), (3, 2, 128, False), (1, 1, 128, False)):
        unit = ConvNormAct(channels, channels, kernel, stride=stride)
        unit.use_winograd()
        assert unit.winograd is expected
    narrow = ConvNormAct(64, 128, 3)
    narrow.use_winograd(keep_weight=True)
    assert narrow.winograd_weight is None


def make_norm(kind):
    torch.manual_seed(5)
    norm = FrozenBatchNorm2d(12) if kind == "FrozenBN" else nn.BatchNorm2d(12)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.copy_(torch.rand(12) + 0.5)
        for tensor in (norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(12))
    return norm


@pytest.mark.parametrize("kind", ["FrozenBN", "BN"])
@pytest.mark.parametrize("is_training", [True, False])
def test_a_unit_equals_convolution_norm_and_relu_with_all_gradients(kind, is_training):
    unit = ConvNormAct(8, 12, 3, norm=lambda _: make_norm(kind)).train(is_training).double()
    plain = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), make_norm(kind), nn.ReLU()).double()
    plain.train(is_training)
    plain[0].weight = nn.Parameter(unit.weight.detach().clone())
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    for module in (unit, plain):
        module(x).square().sum().backward()
    torch.testing.assert_close(unit(x), plain(x))
    torch.testing.assert_close(unit.weight.grad, plain[0].weight.grad)
    if kind == "BN":  # whose weights learn, in evaluation too
        torch.testing.assert_close(unit.norm.weight.grad, plain[1].weight.grad)
        torch.testing.assert_close(unit.norm.bias.grad, plain[1].bias.grad)
        torch.testing.assert_close(unit.norm.running_mean, plain[1].running_mean)


def test_a_norm_that_someone_listens_to_is_called():
    unit = ConvNormAct(8, 12, 3, norm=lambda _: make_norm("FrozenBN"))
    x, seen = torch.randn(1, 8, 5, 5), []
    expected = unit(x)
    handle = unit.norm.register_forward_hook(lambda _, __, out: seen.append(out.shape))
    torch.testing.assert_close(unit(x), expected)
    assert seen == [(1, 12, 5, 5)]
    handle.remove()


def test_folding_follows_the_weights():
    unit = ConvNormAct(8, 12, 1, norm=lambda _: make_norm("FrozenBN"), activation=None)
    x = torch.randn(1, 8, 5, 5)
    before = unit(x)
    with torch.no_grad():
        unit.norm.weight.mul_(2)
        unit.norm.bias.zero_()
        unit.norm.running_mean.zero_()
    after = (
        F.conv2d(x, unit.weight)
        * (2 * make_norm("FrozenBN").weight / (unit.norm.running_var + unit.norm.eps).sqrt())[:, None, None]
    )
    torch.testing.assert_close(unit(x), after, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after, atol=0.1)
