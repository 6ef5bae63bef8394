"""The convolutions that residual blocks are made of: Detectron2's own, and those that it does not have."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import nn
from torchvision.ops import deform_conv2d

from resnet_det.modeling.norms import make_norm
from resnet_det.specs import DeformSpec


def make_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm: str | Callable = "",
) -> Conv2d:
    """Detectron2's convolution with ``norm`` behind it, without bias, padded so that stride 1 keeps the resolution.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)) for odd kernels.
    """
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=make_norm(norm, out_channels),
    )


class PreactConv(nn.Conv2d):
    """The convolution of a pre-activation block (arXiv 1603.05027, figure 4e).

    Its ``norm`` normalises its input, and is called by the block, which needs the activated input for its shortcut too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str | Callable = "",
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.norm = make_norm(norm, in_channels)


class AvgDownShortcut(Conv2d):
    """A shortcut that averages 2x2 pixels where a projection would skip three of four (arXiv 1812.01187, section 4.2).

    The 1x1 convolution itself has no stride; its state is that of a projection.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: str | Callable) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False, norm=make_norm(norm, out_channels))
        self.pool_stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool_stride > 1:
            x = F.avg_pool2d(x, 2, self.pool_stride, ceil_mode=True, count_include_pad=False)
        return super().forward(x)


class PadShortcut(nn.Module):
    """A shortcut without weights (arXiv 1512.03385, section 3.3, option A): pixels are skipped, and channels of zeros
    added, as many before the others as behind them.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.new_channels, self.stride = (before, out_channels - in_channels - before), stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.new_channels))

    def extra_repr(self) -> str:
        return f"new_channels={self.new_channels}, stride={self.stride}"


def make_shortcut(kind: str, in_channels: int, out_channels: int, *, stride: int, norm: str | Callable) -> nn.Module:
    """What a block adds where the shape changes: ``kind`` is "projection", "avg_down" or "pad"."""
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride=stride)
    if kind == "avg_down":
        return AvgDownShortcut(in_channels, out_channels, stride=stride, norm=norm)
    return make_conv(in_channels, out_channels, 1, stride=stride, norm=norm)


class DeformConv(nn.Conv2d):
    """A 3x3 convolution that samples where ``offset`` says (arXiv 1703.06211; with ``mask`` 1811.11168), then ``norm``.

    torchvision's operator is used: unlike Detectron2's it needs no compiled extension and has a backward pass on the
    CPU.

    Shapes:
        x: (N, in_channels, H, W); offset: (N, 18 * groups, H', W') in input pixels; mask: (N, 9 * groups, H', W') in
        0..1; out: (N, out_channels, H', W').
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, dilation: int, groups: int, norm: str | Callable
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        # It has no kernel for bfloat16 on CPUs.
        x, offset, mask = (t if t is None else t.to(self.weight.dtype) for t in (x, offset, mask))
        x = deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
        return x if self.norm is None else self.norm(x)


def make_offset_conv(in_channels: int, deform: DeformSpec, *, stride: int, dilation: int) -> Conv2d:
    """Predicts offsets, and with ``deform.modulated`` the logits of the mask behind them; zero at the start."""
    channels = (27 if deform.modulated else 18) * deform.num_groups
    conv = Conv2d(in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
