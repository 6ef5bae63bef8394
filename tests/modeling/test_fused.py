"""The fused operator of prepared models is compared with its parts, on random numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_det.modeling import fused
from resnet_det.modeling.fused import ONEDNN_DTYPES, conv_sum_relu

GEOMETRIES = {
    "1x1": {"kernel_size": 1},
    "1x1 stride": {"kernel_size": 1, "stride": 2},
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 stride": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3x3 dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "3x3 groups": {"kernel_size": 3, "padding": 1, "groups": 4},
    "oblong": {"kernel_size": (1, 3), "padding": (0, 1), "stride": (2, 1)},
}


def make(name, dtype=torch.float32, *, channels_last=True):
    torch.manual_seed(3)
    conv, x = nn.Conv2d(8, 12, **GEOMETRIES[name]), torch.randn(2, 8, 13, 11)
    if channels_last:
        conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return conv.to(dtype).requires_grad_(False), x.to(dtype)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_sum", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_the_fused_operator_equals_its_parts(name, dtype, with_sum, relu):
    conv, x = make(name, dtype)
    expected = F.conv2d(
        x.double(), conv.weight.double(), conv.bias.double(), conv.stride, conv.padding, conv.dilation, conv.groups
    )
    summand = torch.randn(expected.shape).to(dtype) if with_sum else None
    expected = expected + summand.double() if with_sum else expected
    out = conv_sum_relu(conv, x, summand, relu=relu)
    assert out.dtype == dtype
    expected = expected.relu() if relu else expected
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    assert (out.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layouts", list(itertools.product((torch.contiguous_format, torch.channels_last), repeat=3)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_any_layout_of_weight_features_and_summand_is_summed(dtype, layouts, overwrite):
    conv, x = make("3x3", dtype, channels_last=False)
    summand = torch.randn(2, 12, 13, 11).to(dtype)
    expected = F.relu(F.conv2d(x.float(), conv.weight.float(), conv.bias.float(), padding=1) + summand.float())
    conv, x, summand = (part.to(memory_format=layout) for part, layout in zip((conv, x, summand), layouts, strict=True))
    out = conv_sum_relu(conv, x, summand, overwrite=overwrite)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert (out.float() - expected).abs().max() <= tolerance * expected.max()


@pytest.mark.parametrize("channels_last", [True, False])
@torch.no_grad()
def test_overwriting_gives_the_same_and_writes_where_the_summand_was(channels_last):
    conv, x = make("3x3", channels_last=channels_last)
    summand = torch.randn(2, 12, 13, 11).to(memory_format=torch.channels_last)
    before = summand.clone()
    expected = conv_sum_relu(conv, x, summand)
    assert torch.equal(summand, before)
    out = conv_sum_relu(conv, x, summand, overwrite=True)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    if torch.float32 in ONEDNN_DTYPES:
        assert out.data_ptr() == summand.data_ptr()


@torch.no_grad()
def test_shapes_that_do_not_fit_are_an_error():
    conv, x = make("3x3")
    with pytest.raises(RuntimeError, match="to have 8 channels, but got 6 channels"):
        conv_sum_relu(conv, x[:, :6])
    with pytest.raises(RuntimeError, match="must match"):
        conv_sum_relu(conv, x, torch.randn(2, 12, 7, 6))
    assert conv_sum_relu(conv, x[:0]).shape == (0, 12, 13, 11)


def test_with_gradients_it_is_the_ordinary_convolution():
    conv, x = make("3x3")
    x.requires_grad_()
    conv_sum_relu(conv, x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("_convolution_pointwise", ()), ("_is_mkldnn_bf16_supported", None), ("_is_mkldnn_fp16_supported", None)],
)
def test_operators_that_torch_does_not_have_are_done_without(monkeypatch, missing, expected):
    class Without:
        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return getattr(onednn, name)

    onednn = torch.ops.mkldnn
    monkeypatch.setattr(torch.ops, "mkldnn", Without())
    found = fused._find_onednn_dtypes()
    assert found == expected or (expected is None and set(found) <= set(ONEDNN_DTYPES))
