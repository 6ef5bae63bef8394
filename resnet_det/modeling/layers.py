"""The unit every ResNet here is built of: a convolution with its normalisation and its activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from resnet_det.modeling.fused import Geometry, conv_sum_relu
from resnet_det.modeling.norms import make_norm, read_affine
from resnet_det.modeling.winograd import conv3x3, takes_winograd, transform_weight
from resnet_det.specs import DeformSpec

# With fewer channels, transforming tiles takes longer than it saves.
MIN_WINOGRAD_CHANNELS = 128


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
        self.winograd = False
        self.register_buffer("winograd_weight", None, persistent=False)

    def forward(self, x: torch.Tensor, summand: torch.Tensor | None = None, *, overwrite: bool = False) -> torch.Tensor:
        """``activation(norm(convolution(x)))``, or with a shortcut as ``summand`` the end of a residual block:
        ``relu(norm(convolution(x)) + summand)``, which may ``overwrite`` the summand."""
        folded = self.fold()
        activation = self.activation if summand is None else F.relu_
        relu = activation in (F.relu, F.relu_)
        if folded is not None and (relu or activation is None):
            weight, scale, bias = folded
            return self.convolve(
                x, weight, bias, scale=scale, summand=summand, relu=relu, overwrite=overwrite and summand is not None
            )
        out = self.convolve(x, self.weight, self.bias)
        if self.norm is not None:
            out = self.norm(out)
        if summand is not None:
            out += summand
        return out if activation is None else activation(out)

    def fold(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] | None:
        """Weight, a scale without gradient (or None), and bias, such that ``norm(convolution(x))`` is the convolution
        with ``weight * scale`` and ``bias``; None if the norm is not a fixed scale and shift, and in tracing.

        They are computed anew each time: cached ones would be wrong after an optimizer step or load_state_dict.
        """
        if self.norm is None:
            return self.weight, None, self.bias
        affine = None if torch.jit.is_tracing() else read_affine(self.norm)
        if affine is None:
            return None
        scale, shift = affine
        bias = shift if self.bias is None else shift + self.bias * scale
        if scale.requires_grad:
            return self.weight * scale[:, None, None, None], None, bias
        return self.weight, scale, bias

    @torch.no_grad()
    def fold_(self) -> None:
        """Fold the norm for good, if it is a fixed scale and shift: it leaves the state."""
        folded = self.fold()
        if self.norm is None or folded is None:
            return
        weight, scale, bias = folded
        weight = weight if scale is None else weight * scale[:, None, None, None]
        self.weight, self.bias, self.norm = (
            *(nn.Parameter(part, requires_grad=False) for part in (weight, bias)),
            None,
        )

    def use_winograd(self, *, keep_weight: bool = False) -> None:
        """Compute by Winograd's algorithm where that is possible: float32 on a CPU (see modeling/winograd.py).

        Nothing changes for kernels and numbers of channels that it does not suit.

        Args:
            keep_weight: keep the transformed weight, for a model that is not trained.
        """
        geometry = (self.kernel_size, self.stride, self.dilation, self.groups)
        suits = geometry == ((3, 3), (1, 1), (1, 1), 1)
        self.winograd = suits and min(self.in_channels, self.out_channels) >= MIN_WINOGRAD_CHANNELS
        if self.winograd and keep_weight:
            self.winograd_weight = transform_weight(self.weight)

    def convolve(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        scale: torch.Tensor | None = None,
        summand: torch.Tensor | None = None,
        relu: bool = False,
        overwrite: bool = False,
    ) -> torch.Tensor:
        """As :func:`conv_sum_relu`, with this one's geometry."""
        if self.winograd and takes_winograd(x, self.winograd_weight):
            weight = weight if scale is None else weight * scale[:, None, None, None]
            out = conv3x3(x, weight, bias, transformed=self.winograd_weight)
            if summand is not None:
                out += summand
            return F.relu_(out) if relu else out
        geometry = Geometry(self.stride, self.padding, self.dilation, self.groups)
        return conv_sum_relu(x, weight, bias, geometry, scale=scale, summand=summand, relu=relu, overwrite=overwrite)


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
        # It has no kernel for bfloat16 on CPUs.
        x, offsets, mask = (t if t is None else t.to(self.weight.dtype) for t in (x, offsets, mask))
        x = deform_conv2d(x, offsets, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
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


def make_unit(conv: nn.Conv2d, *, activation: Callable[[torch.Tensor], torch.Tensor] | None = None) -> ConvNormAct:
    """Our unit with the parameters and the norm of ``conv``, of torch or Detectron2, whose padding is as ours."""
    with torch.device("meta"):  # its own parameters are not needed: none are drawn
        unit = ConvNormAct(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            stride=conv.stride[0],
            dilation=conv.dilation[0],
            groups=conv.groups,
            bias=conv.bias is not None,
            activation=activation,
        )
    unit.weight, unit.bias, unit.norm = conv.weight, conv.bias, getattr(conv, "norm", None)
    return unit
