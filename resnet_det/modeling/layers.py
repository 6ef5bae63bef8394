"""The unit every ResNet here is built of: a convolution with its normalisation and its activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from resnet_det.modeling.fused import conv_sum_relu
from resnet_det.modeling.norms import make_norm, read_affine
from resnet_det.specs import DeformSpec


class ConvNormAct(nn.Conv2d):
    """Convolution, then ``norm``, then ``activation``, each of the last two optional.

    The padding keeps the resolution at stride 1. State: ``weight``, ``bias`` if asked for, and ``norm.*`` where there
    is a norm (Detectron2's names).

    Where the norm is a fixed scale and shift (FrozenBN, or BatchNorm in evaluation), it is folded into weight and bias
    at each call, which is the same function with the same gradients, and a pass over the feature map less.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)) for odd kernels.
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
        bias: bool = False,
        norm: str | Callable = "",
        activation: Callable[[torch.Tensor], torch.Tensor] | None = F.relu_,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.norm = make_norm(norm, out_channels)
        self.activation = activation

    def forward(self, x: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        """``activation(norm(convolution(x)))``, or with a shortcut as ``summand`` the end of a residual block:
        ``relu(norm(convolution(x)) + summand)``."""
        folded = self.fold()
        activation = self.activation if summand is None else F.relu_
        relu = activation in (F.relu, F.relu_)
        if folded is not None and (relu or activation is None):
            return self.convolve(x, *folded, summand, relu=relu)
        out = self.convolve(x, self.weight, self.bias)
        if self.norm is not None:
            out = self.norm(out)
        if summand is not None:
            out += summand
        return out if activation is None else activation(out)

    def fold(self) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Weight and bias that do the norm, too; None if it is not a fixed scale and shift, and in tracing.

        They are computed anew each time: cached ones would be wrong after an optimizer step or load_state_dict.
        """
        if self.norm is None:
            return self.weight, self.bias
        affine = None if torch.jit.is_tracing() else read_affine(self.norm)
        if affine is None:
            return None
        scale, shift = affine
        return self.weight * scale[:, None, None, None], shift if self.bias is None else shift + self.bias * scale

    def convolve(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        summand: torch.Tensor | None = None,
        *,
        relu: bool = False,
    ) -> torch.Tensor:
        """The convolution with these weights, plus ``summand``, and ReLU if asked for."""
        return conv_sum_relu(
            x,
            weight,
            bias,
            summand,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            relu=relu,
        )


class NormActConv(ConvNormAct):
    """The same parts in the order of pre-activation: norm, activation, convolution (arXiv 1603.05027, figure 4e)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, norm: str | Callable, **kwargs
    ) -> None:
        # Not in place: without a norm, the input is what the shortcut adds.
        super().__init__(in_channels, out_channels, kernel_size, **{"activation": F.relu, **kwargs})
        self.norm = make_norm(norm, in_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolve(self.normalise(x), self.weight, self.bias)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """The norm and the activation."""
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class AvgDownShortcut(ConvNormAct):
    """A shortcut that averages 2x2 pixels where a projection would skip three of four (arXiv 1812.01187, section 4.2).

    The 1x1 convolution itself has no stride; its state is that of a projection.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        self.pool_stride = stride

    def forward(self, x: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        if self.pool_stride > 1:
            x = F.avg_pool2d(x, 2, self.pool_stride, ceil_mode=True, count_include_pad=False)
        return super().forward(x, summand)


class DeformConvNormAct(ConvNormAct):
    """:class:`ConvNormAct` that samples where ``offsets`` say (arXiv 1703.06211; with a mask 1811.11168).

    torchvision's operator is used: unlike Detectron2's it needs no compiled extension and has a backward pass on the
    CPU.
    """

    def forward(self, x: torch.Tensor, offsets: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = deform_conv2d(x, offsets, self.weight, None, self.stride, self.padding, self.dilation, mask)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class OffsetConv(nn.Conv2d):
    """Predicts the offsets of a 3x3 deformable convolution (Detectron2's ``conv2_offset``); zero at the start."""

    def __init__(self, in_channels: int, deform: DeformSpec, *, stride: int, dilation: int) -> None:
        channels = (27 if deform.modulated else 18) * deform.num_groups
        super().__init__(in_channels, channels, 3, stride, dilation, dilation)
        self.modulated = deform.modulated
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Offsets (N, 18 * groups, H, W) in input pixels and, if modulated, a mask (N, 9 * groups, H, W) in 0..1."""
        out = super().forward(x)
        if not self.modulated:
            return out, None
        offsets, mask = out.tensor_split([out.shape[1] // 3 * 2], dim=1)
        return offsets, mask.sigmoid()
