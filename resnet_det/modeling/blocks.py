"""Residual blocks: H(x) = F(x) + x (arXiv 1512.03385, section 3).

Their constructors take Detectron2's arguments, so that they stand in ``ResNet.make_stage`` and in LazyConfig.
"""

from __future__ import annotations

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase
from torch import nn
from torchvision.ops import SqueezeExcitation, StochasticDepth

from resnet_det.modeling.layers import DeformConv, PreactConv, make_conv, make_offset_conv, make_shortcut
from resnet_det.specs import DeformSpec


class ResidualBlock(CNNBlockBase):
    """What all blocks share: the shortcut, the convolutions one after the other, and the sum.

    The order of operations, and what is done in place, are those of Detectron2's blocks: code that listens to a part
    (hooks) or replaces one sees the same.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    conv_names: tuple[str, ...]
    make_conv = staticmethod(make_conv)
    has_shortcut_norm = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str | Callable = "BN",
        shortcut: str = "projection",
        se_reduction: int = 0,
        zero_init_residual: bool = False,
        stochastic_depth: float = 0.0,
        **convs: object,
    ) -> None:
        """
        Args:
            convs: the arguments of :meth:`add_convs` of the subclass.
            shortcut, se_reduction, zero_init_residual, stochastic_depth: see :class:`resnet_det.specs.ResNetSpec`.
        """
        super().__init__(in_channels, out_channels, stride)
        self.adds_input = shortcut != "none"
        # arXiv 1512.03385, section 3.3: the shortcut is the identity, but for where the shape changes.
        self.shortcut = None
        if self.adds_input and (in_channels != out_channels or stride != 1):
            shortcut_norm = norm if self.has_shortcut_norm else ""
            self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride=stride, norm=shortcut_norm)
        self.add_convs(norm=norm, **convs)
        last = getattr(self, self.conv_names[-1])
        for conv in (*(getattr(self, name) for name in self.conv_names), self.shortcut):
            if conv is not None and hasattr(conv, "weight"):
                weight_init.c2_msra_fill(conv)  # arXiv 1502.01852
        if zero_init_residual:
            nn.init.zeros_(last.norm.weight)
        self.se = make_squeeze_excitation(out_channels, se_reduction) if se_reduction else None
        self.drop = StochasticDepth(stochastic_depth, "row") if stochastic_depth else None

    def add_convs(self, *, norm: str | Callable) -> None:
        """Add the convolutions ``conv_names``, in this order, and what belongs to them."""
        raise NotImplementedError

    def add_deform_conv(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        deform: DeformSpec,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str | Callable = "",
    ) -> None:
        """Add a deformable convolution, and before it ``<name>_offset``, which says where it samples."""
        self.add_module(f"{name}_offset", make_offset_conv(in_channels, deform, stride=stride, dilation=dilation))
        conv = DeformConv(in_channels, out_channels, stride=stride, dilation=dilation, groups=groups, norm=norm)
        self.add_module(name, conv)
        self.deform_modulated = deform.modulated

    def run_conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The convolution ``name`` with its norm."""
        conv, offset_conv = getattr(self, name), getattr(self, f"{name}_offset", None)
        if offset_conv is None:
            return conv(x)
        offset = offset_conv(x)
        if not self.deform_modulated:
            return conv(x, offset)
        offset, logits = offset.tensor_split([offset.shape[1] // 3 * 2], dim=1)
        return conv(x, offset, logits.sigmoid())

    def finish_residual(self, x: torch.Tensor) -> torch.Tensor:
        """Squeeze-and-excitation and stochastic depth, which stand behind the last convolution."""
        if self.se is not None:
            x = self.se(x)
        return x if self.drop is None else self.drop(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for name in self.conv_names[:-1]:
            out = F.relu_(self.run_conv(name, out))
        out = self.finish_residual(self.run_conv(self.conv_names[-1], out))
        if self.adds_input:
            out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and ResNet-34 (arXiv 1512.03385, figure 5, left)."""

    conv_names = ("conv1", "conv2")

    def add_convs(self, *, norm: str | Callable, dilation: int = 1, deform: DeformSpec | None = None) -> None:
        channels = self.out_channels
        self.conv1 = self.make_conv(self.in_channels, channels, 3, stride=self.stride, dilation=dilation, norm=norm)
        if deform is not None:
            self.add_deform_conv("conv2", channels, channels, deform, dilation=dilation, norm=norm)
        else:
            self.conv2 = self.make_conv(channels, channels, 3, dilation=dilation, norm=norm)


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions, as in ResNet-50 and deeper (arXiv 1512.03385, figure 5; groups: 1611.05431)."""

    conv_names = ("conv1", "conv2", "conv3")

    def add_convs(
        self,
        *,
        norm: str | Callable,
        bottleneck_channels: int,
        num_groups: int = 1,
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform: DeformSpec | None = None,
    ) -> None:
        width = bottleneck_channels
        # MSRA's ResNets stride in the first 1x1 convolution, torchvision's and all ResNeXts in the 3x3.
        stride_1x1, stride_3x3 = (self.stride, 1) if stride_in_1x1 else (1, self.stride)
        geometry = {"stride": stride_3x3, "dilation": dilation, "groups": num_groups}
        self.conv1 = self.make_conv(self.in_channels, width, 1, stride=stride_1x1, norm=norm)
        if deform is not None:
            self.add_deform_conv("conv2", width, width, deform, norm=norm, **geometry)
        else:
            self.conv2 = self.make_conv(width, width, 3, norm=norm, **geometry)
        self.conv3 = self.make_conv(width, self.out_channels, 1, norm=norm)


class PreactMixin:
    """Makes a block pre-activated: norms and activations stand before the convolutions (arXiv 1603.05027, figure 4e).

    A projection takes the activated input and has no norm, and nothing follows the sum.
    """

    make_conv = PreactConv
    has_shortcut_norm = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, activated = x, None
        for name in self.conv_names:
            conv = getattr(self, name)
            norm = getattr(conv, "norm", None)
            out = F.relu(out if norm is None else norm(out))
            activated = out if activated is None else activated
            out = conv(out)
        out = self.finish_residual(out)
        if self.adds_input:
            out += x if self.shortcut is None else self.shortcut(activated)
        return out


class PreactBasicBlock(PreactMixin, BasicBlock):
    """A basic block of ResNet-v2."""


class PreactBottleneckBlock(PreactMixin, BottleneckBlock):
    """A bottleneck of ResNet-v2."""


def make_squeeze_excitation(channels: int, reduction: int) -> SqueezeExcitation:
    """Squeeze-and-excitation (arXiv 1709.01507, section 3) over ``channels / reduction``, a multiple of 8 (timm)."""
    squeezed = max(8, (channels // reduction + 4) // 8 * 8)
    se = SqueezeExcitation(channels, squeezed)
    weight_init.c2_msra_fill(se.fc1)
    weight_init.c2_msra_fill(se.fc2)
    return se


BLOCKS: dict[str, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "preact_basic": PreactBasicBlock,
    "preact_bottleneck": PreactBottleneckBlock,
}
