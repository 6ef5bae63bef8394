"""A convolution with its bias, the sum with a shortcut, and ReLU: one operator where there is one, else the three.

oneDNN, which computes convolutions on CPUs, adds and clips while a result is still in the cache; done one after the
other, each step reads and writes the whole feature map again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable


def conv_sum_relu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    summand: torch.Tensor | None = None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    relu: bool,
) -> torch.Tensor:
    """``relu(conv2d(x, weight, bias) + summand)``, with gradients; under autocast in its type.

    Shapes:
        x: (N, C, H, W); weight: (D, C / groups, kernel, kernel); bias: (D,); summand: that of the output.
    """
    if not is_fusible(x):
        out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        if summand is not None:
            out += summand
        return F.relu_(out) if relu else out
    dtype = _compute_dtype(weight)
    x, weight, bias, summand = (tensor if tensor is None else tensor.to(dtype) for tensor in (x, weight, bias, summand))
    geometry = (stride, padding, dilation, groups)
    tensors = (x, weight, bias, summand)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _ConvSumReLU.apply(*tensors, geometry, relu)
    return run_onednn(*tensors, geometry, relu)


def is_fusible(x: torch.Tensor) -> bool:
    """Whether oneDNN's operator can take ``x``: on a CPU that has its type, outside of compilation and tracing.

    A compiler fuses by itself, and what is traced should consist of ordinary operators.
    """
    return (
        x.device.type == "cpu"
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and _compute_dtype(x) in ONEDNN_DTYPES
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def _compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tensor.dtype


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


def run_onednn(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    summand: torch.Tensor | None,
    geometry: tuple,
    relu: bool,
) -> torch.Tensor:
    """The operator itself, without gradients.

    Args:
        weight: as for conv2d, or reordered by oneDNN.
        geometry: stride, padding, dilation and groups.
    """
    stride, padding, dilation, groups = geometry
    if summand is None:
        activation = "relu" if relu else "none"
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, activation, [], ""
        )
    activation = "relu" if relu else None
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, summand, weight, bias, padding, stride, dilation, groups, "add", 1.0, activation, [], ""
    )


class _ConvSumReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        summand: torch.Tensor | None,
        geometry: tuple,
        relu: bool,
    ) -> torch.Tensor:
        out = run_onednn(x, weight, bias, summand, geometry, relu)
        ctx.save_for_backward(x, weight, out if relu else None)
        ctx.geometry, ctx.bias_sizes = geometry, None if bias is None else list(bias.shape)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        x, weight, out = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        needed = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups, needed
        )
        return *grads, grad if ctx.needs_input_grad[3] else None, None, None
