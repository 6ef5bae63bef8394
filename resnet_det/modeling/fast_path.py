"""The fast path: another way to compute our ResNet and FPN on a CPU, taken where nothing can tell the difference.

The model itself is Detectron2's in all that code around it sees: its layers, what its hooks see, how tensors lie in
memory. :func:`may_take` alone decides, at each call, whether a whole ResNet or FPN runs by the functions below instead.
There, scale and shift of fixed norms become part of weights and biases, sums and ReLUs are done inside the convolution
(:mod:`resnet_det.modeling.fused`), and channels lie side by side. What comes out is laid as the plain model lays it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from resnet_det.modeling.blocks import BasicBlock, BottleneckBlock, ResidualBlock
from resnet_det.modeling.fused import ONEDNN_DTYPES, Geometry, compute_dtype, conv_sum_relu, is_captured
from resnet_det.modeling.layers import AvgDownShortcut
from resnet_det.modeling.norms import LayerNorm, read_affine
from resnet_det.modeling.stems import BasicStem, DeepStem, Stem

_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm, nn.GroupNorm, LayerNorm)

# What the fast path stands for: classes, and those of their children. Whatever is not listed - replaced, wrapped,
# subclassed, squeezed and excited - makes the whole model run plainly. resnet.py and pyramid.py add their own classes.
_PARTS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    **dict.fromkeys((*_NORMS, nn.Linear, nn.AdaptiveAvgPool2d, nn.Conv2d, LastLevelMaxPool), ()),
    LastLevelP6P7: (nn.Conv2d,),
    Conv2d: _NORMS,
    AvgDownShortcut: _NORMS,
    BasicStem: (Conv2d,),
    DeepStem: (Conv2d,),
    BasicBlock: (Conv2d, AvgDownShortcut),
    BottleneckBlock: (Conv2d, AvgDownShortcut),
    nn.Sequential: (BasicBlock, BottleneckBlock),
}
_FORWARDS = {cls: cls.forward for cls in _PARTS}
_CALL = nn.Module.__call__


def stands_for(cls: type[nn.Module], *children: type[nn.Module]) -> None:
    """Add a class whose ``forward`` takes the fast path, with the classes its children may have."""
    _PARTS[cls], _FORWARDS[cls] = children, cls.forward


def _find_watchers() -> tuple[Callable[[], object], ...] | None:
    """Functions of torch that are true while somebody follows each module or operator: global hooks, modes such as
    FlopCounterMode and FakeTensorMode, transforms of torch.func, forward-mode differentiation. None if this torch lacks
    one of them: then nobody knows."""
    try:
        return (
            nn.modules.module._has_any_global_hook,
            torch._C._len_torch_dispatch_stack,
            torch._C._len_torch_function_stack,
            torch._C._functorch.peek_interpreter_stack,
            lambda: torch.autograd.forward_ad._current_level >= 0,
        )
    except AttributeError:
        return None


_WATCHERS = _find_watchers()
# Without AVX-512, oneDNN's backward passes take longer where channels lie side by side.
_TRAINS_FAST = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def may_take(model: nn.Module, x: torch.Tensor) -> bool:
    """Whether nothing can tell the fast path through ``model`` from the plain one, but the clock and the last digits.

    So not under a compiler, tracer, transform or mode; not with a hook, a replaced, wrapped or patched part anywhere in
    ``model``; not with parameters of another type or device than the input.

    Args:
        model: a ResNet, or an FPN with a ResNet.
        x: its input, (N, C, H, W) if it is right.
    """
    if is_captured() or _WATCHERS is None or any(watches() for watches in _WATCHERS):
        return False
    if type(x) is not torch.Tensor or x.device.type != "cpu" or x.dim() != 4 or x.numel() == 0:
        return False
    if torch.is_grad_enabled() and not _TRAINS_FAST:
        return False
    dtype = compute_dtype(x)
    if dtype not in ONEDNN_DTYPES or not torch.backends.mkldnn.enabled:
        return False
    # Autocast converts parameters; else another type is an error, which the plain way raises.
    return _is_untouched(model, None if dtype != x.dtype else dtype)


# Hooks, and what Module.compile() sets.
_CALLED_AROUND = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_compiled_call_impl",
)


def _is_untouched(module: nn.Module, dtype: torch.dtype | None) -> bool:
    cls, attributes = type(module), module.__dict__
    if cls.forward is not _FORWARDS.get(cls) or cls.__call__ is not _CALL or "forward" in attributes:
        return False
    if any(attributes.get(name) for name in _CALLED_AROUND):
        return False
    for tensor in (*attributes["_parameters"].values(), *attributes["_buffers"].values()):
        if tensor is not None and not _is_ordinary(tensor, dtype):
            return False
    if issubclass(cls, Conv2d) and not _is_ordinary_conv(module):
        return False
    children = [child for child in attributes["_modules"].values() if child is not None]
    return all(type(child) in _PARTS[cls] and _is_untouched(child, dtype) for child in children)


def _is_ordinary(tensor: torch.Tensor, dtype: torch.dtype | None) -> bool:
    has_dtype = dtype is None or tensor.dtype == dtype or not tensor.is_floating_point()
    return has_dtype and type(tensor) in (nn.Parameter, torch.Tensor) and tensor.is_cpu


def _is_ordinary_conv(conv: Conv2d) -> bool:
    return (
        conv.activation is None
        and isinstance(conv.padding, tuple)
        and isinstance(conv.norm, nn.Module | None)
        and "weight" in conv._parameters
    )


def run_plainly(part: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The plain way to run any part of a model."""
    return part(x)


def run_resnet(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What ``net`` puts out, channels-last."""
    return net.run_parts(x.contiguous(memory_format=torch.channels_last), _run_part)


def run_pyramid(fpn: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What ``fpn`` puts out, channels-last."""
    return fpn.merge(run_resnet(fpn.bottom_up, x), _run_conv, torch.Tensor.add_)


def lay_like_plain(outputs: dict[str, torch.Tensor], x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """``outputs`` in the layout that they have after plain convolutions: channels-last if the input or the first
    ``weight`` is, else contiguous."""
    if any(_lies_channels_last(tensor) for tensor in (x, weight)):
        return outputs
    return {name: output.contiguous() for name, output in outputs.items()}


def _lies_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _run_part(part: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A stem, a stage or a block."""
    if isinstance(part, nn.Sequential):
        for block in part:
            x = _run_block(block, x)
        return x
    return _run_stem(part, x) if isinstance(part, Stem) else _run_block(part, x)


def _run_stem(stem: Stem, x: torch.Tensor) -> torch.Tensor:
    for name in stem.conv_names:
        x = _run_conv(getattr(stem, name), x, relu=stem.ends_activated or name != stem.conv_names[-1])
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def _run_block(block: ResidualBlock, x: torch.Tensor) -> torch.Tensor:
    *names, last = block.conv_names
    out = x
    for name in names:
        out = _run_conv(getattr(block, name), out, relu=True)
    if not block.adds_input:
        return _run_conv(getattr(block, last), out, relu=True)
    summand = x if block.shortcut is None else _run_conv(block.shortcut, x)
    return _run_conv(getattr(block, last), out, summand, relu=True, overwrite=block.shortcut is not None)


def _run_conv(
    conv: Conv2d, x: torch.Tensor, summand: torch.Tensor | None = None, *, relu: bool = False, overwrite: bool = False
) -> torch.Tensor:
    """``relu(norm(convolution(x)) + summand)``; with ``overwrite`` the result may be put where ``summand`` was."""
    if isinstance(conv, AvgDownShortcut):
        x = conv.pool(x)
    geometry = Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    affine = read_affine(conv.norm)
    if conv.norm is not None and affine is None:  # it depends on the image or the batch
        out = conv.norm(F.conv2d(x, conv.weight, conv.bias, *geometry))
        if summand is not None:
            out += summand
        return F.relu_(out) if relu else out
    weight, scale, bias = conv.weight, None, conv.bias
    if affine is not None:
        scale, shift = affine
        bias = shift if bias is None else shift + bias * scale
    if scale is not None and scale.requires_grad:
        weight, scale = weight * scale[:, None, None, None], None
    return conv_sum_relu(x, weight, bias, geometry, scale=scale, summand=summand, relu=relu, overwrite=overwrite)
