"""A convolution, the sum with a shortcut, and ReLU in one pass over the feature map, for models that are not trained.

oneDNN, which computes convolutions on CPUs, adds and clips while a result is still in the cache; done one after the
other, each step reads and writes the whole feature map again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_sum_relu(
    conv: nn.Conv2d, x: torch.Tensor, summand: torch.Tensor | None = None, *, relu: bool = True, overwrite: bool = False
) -> torch.Tensor:
    """``relu(conv(x) + summand)`` without gradients; in the type of the weight, or under autocast in that.

    ReLU makes NaN 0 here.

    Args:
        conv: its weight, bias and geometry are used; it is not called.
        overwrite: put the result where ``summand`` was: its memory is in use already.

    Shapes:
        x: (N, C, H, W); summand: that of the output.
    """
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    dtype = _compute_dtype(conv, x)
    x = x.to(dtype)
    if not _is_fusible(conv, x, summand, dtype):
        out = F.conv2d(x, conv.weight, conv.bias, *geometry)
        out = out if summand is None else out + summand
        return F.relu(out) if relu else out
    weight, bias, summand = (
        tensor if tensor is None else tensor.to(dtype) for tensor in (conv.weight, conv.bias, summand)
    )
    stride, padding, dilation, groups = geometry
    if summand is None:
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, "relu" if relu else "none", [], ""
        )
    # Only what lies channels-last is summed inside; torch's other way has no bfloat16.
    x, summand = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, summand))
    rest = (weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu" if relu else None, [], "")
    if overwrite:
        return torch.ops.mkldnn._convolution_pointwise_.binary(summand, x, *rest)
    return torch.ops.mkldnn._convolution_pointwise.binary(x, summand, *rest)


def is_captured() -> bool:
    """Whether a compiler or a tracer follows, so that ordinary operators should be called."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _compute_dtype(conv: nn.Conv2d, x: torch.Tensor) -> torch.dtype:
    """What ``conv`` computes in: autocast's type, or that of its weight."""
    device_type = x.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device_type)
    return conv.weight.dtype


def _find_onednn_dtypes() -> tuple[torch.dtype, ...]:
    """What oneDNN computes on this machine. The operator has no public name; torch.compile uses it under this one."""
    onednn = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(onednn, "_convolution_pointwise"):
        return ()
    checks = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    is_supported = {dtype: getattr(onednn, name, lambda: False)() for dtype, name in checks.items()}
    return torch.float32, *(dtype for dtype, supported in is_supported.items() if supported)


ONEDNN_DTYPES = _find_onednn_dtypes()


def _is_fusible(conv: nn.Conv2d, x: torch.Tensor, summand: torch.Tensor | None, dtype: torch.dtype) -> bool:
    """Whether oneDNN's operator takes this. It has no sum behind grouped convolutions, and trusts shapes."""
    if is_captured() or torch.is_grad_enabled() or x.device.type != "cpu" or dtype not in ONEDNN_DTYPES:
        return False
    if not torch.backends.mkldnn.enabled or x.numel() == 0 or x.shape[1] != conv.in_channels:
        return False
    return summand is None or (conv.groups == 1 and summand.shape == _output_shape(conv, x))


def _output_shape(conv: nn.Conv2d, x: torch.Tensor) -> tuple[int, ...]:
    sides = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            x.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True
        )
    ]
    return (x.shape[0], conv.out_channels, *sides)
