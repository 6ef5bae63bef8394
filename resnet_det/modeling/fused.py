"""A convolution with the scale and shift of a fixed norm, the sum with a shortcut, and ReLU, in as few passes as can
be.

Scale and shift become part of the weight and the bias. oneDNN, which computes convolutions on CPUs, adds and clips
while a result is still in the cache; done one after the other, each step reads and writes the whole feature map again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx


class Geometry(NamedTuple):
    """Of a convolution, each as torch's conv2d takes it."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def conv_sum_relu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    *,
    scale: torch.Tensor | None = None,
    summand: torch.Tensor | None = None,
    relu: bool = False,
    overwrite: bool = False,
) -> torch.Tensor:
    """``relu(conv2d(x, weight * scale, bias) + summand)``, with gradients of any order; under autocast in its type.

    Args:
        scale: of each output channel, without a gradient.
        overwrite: without gradients, put the result where ``summand`` was: its memory is in use already.

    Shapes:
        x: (N, C, H, W); weight: (D, C / groups, kernel, kernel); scale, bias: (D,); summand: that of the output.
    """
    if is_captured() or x.numel() == 0:
        # A compiler fuses by itself, and what is traced should consist of ordinary operators.
        out = F.conv2d(x, _scale(weight, scale), bias, *geometry)
        out = out if summand is None else out + summand
        return F.relu(out) if relu else out
    dtype = compute_dtype(x)
    x, bias, summand = (tensor if tensor is None else tensor.to(dtype) for tensor in (x, bias, summand))
    tensors = (x, weight, bias, summand)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _ConvSumReLU.apply(*tensors, scale, geometry, relu)
    return _run(*tensors, scale, geometry, relu, overwrite=overwrite)


def is_captured() -> bool:
    """Whether a compiler or a tracer follows, so that ordinary operators should be called."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """What a convolution of ``x`` computes in: autocast's type, or its own."""
    device_type = x.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device_type)
    return x.dtype


def _scale(
    weight: torch.Tensor, scale: torch.Tensor | None, memory_format: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    if scale is None:
        return weight.contiguous(memory_format=memory_format)
    scale = scale[:, None, None, None]
    if torch.is_grad_enabled():
        return weight * scale
    # Scaled and laid in one pass.
    return torch.mul(weight, scale, out=torch.empty_like(weight, memory_format=memory_format))


def _find_onednn_dtypes() -> tuple[torch.dtype, ...]:
    """What oneDNN computes on this machine. The operator has no public name; torch.compile uses it under this one."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return ()
    supported = {
        torch.float32: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return tuple(dtype for dtype, is_supported in supported.items() if is_supported)


ONEDNN_DTYPES = _find_onednn_dtypes()


def _run(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    summand: torch.Tensor | None,
    scale: torch.Tensor | None,
    geometry: Geometry,
    relu: bool,
    *,
    overwrite: bool = False,
) -> torch.Tensor:
    """The computation itself, in the type of ``x``."""
    weight = _scale(weight, scale, torch.channels_last).to(x.dtype)
    if not _is_fusible(x, weight, summand, geometry.groups):
        out = F.conv2d(x, weight, bias, *geometry)
        if summand is not None:
            out += summand
        return F.relu_(out) if relu else out
    stride, padding, dilation, groups = geometry
    if summand is None:
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, "relu" if relu else "none", [], ""
        )
    rest = (weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu" if relu else None, [], "")
    if overwrite:
        return torch.ops.mkldnn._convolution_pointwise_.binary(summand, x, *rest)
    return torch.ops.mkldnn._convolution_pointwise.binary(x, summand, *rest)


def _is_fusible(x: torch.Tensor, weight: torch.Tensor, summand: torch.Tensor | None, groups: int) -> bool:
    """Whether oneDNN's operator takes this; it has no sum behind grouped convolutions, and trusts shapes."""
    has_operator = x.device.type == "cpu" and x.dtype in ONEDNN_DTYPES and torch.backends.mkldnn.enabled
    fits = x.dim() == 4 and x.shape[1] == weight.shape[1] * groups
    return has_operator and fits and (summand is None or groups == 1)


class _ConvSumReLU(torch.autograd.Function):
    """Keeps the input, and the output for ReLU's gradient. The scaled weight is computed again in the backward pass:
    of all layers, they would take as much memory as the model. That pass has gradients itself."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        summand: torch.Tensor | None,
        scale: torch.Tensor | None,
        geometry: Geometry,
        relu: bool,
    ) -> torch.Tensor:
        out = _run(x, weight, bias, summand, scale, geometry, relu)
        ctx.save_for_backward(x, weight, scale, out if relu else None)
        ctx.geometry, ctx.bias_sizes = geometry, None if bias is None else list(bias.shape)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        x, weight, scale, out = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
            del out  # of blocks that are computed again, nobody else has it
        scaled = _scale(weight, scale, torch.channels_last).to(x.dtype)
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad, x, scaled, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups, ctx.needs_input_grad[:3]
        )
        del x, scaled
        if grad_weight is not None:
            grad_weight = _scale(grad_weight.to(weight.dtype), scale)
        return grad_x, grad_weight, grad_bias, grad if ctx.needs_input_grad[3] else None, None, None, None
