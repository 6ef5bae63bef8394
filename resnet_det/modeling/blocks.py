"""Residual blocks: H(x) = F(x) + x (arXiv 1512.03385, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase
from torch import nn
from torchvision.ops import SqueezeExcitation, StochasticDepth

from resnet_det.modeling.layers import AvgDownShortcut, ConvNormAct, DeformConvNormAct, NormActConv, OffsetConv
from resnet_det.specs import BlockSpec

SHORTCUTS: dict[str, type[ConvNormAct]] = {"projection": ConvNormAct, "avg_down": AvgDownShortcut}


class ResidualBlock(CNNBlockBase):
    """What all blocks share: the shortcut, the convolutions one after the other, and the sum.

    A subclass adds its convolutions, in Detectron2's order and under its names.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    unit: type[ConvNormAct] = ConvNormAct

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec.in_channels, spec.out_channels, spec.stride)
        self.spec = spec
        # arXiv 1512.03385, section 3.3, option B: a projection only where the shape changes.
        self.shortcut = None
        if spec.shortcut != "none" and (spec.in_channels != spec.out_channels or spec.stride != 1):
            self.shortcut = SHORTCUTS[spec.shortcut](
                spec.in_channels, spec.out_channels, 1, stride=spec.stride, norm=self.shortcut_norm, activation=None
            )
        self.conv_names: list[str] = []
        self.add_convs()
        for conv in (*self.convs, self.shortcut):
            if conv is not None:
                weight_init.c2_msra_fill(conv)  # arXiv 1502.01852
        if spec.zero_init_residual:
            nn.init.zeros_(self.convs[-1].norm.weight)
        self.se = make_squeeze_excitation(spec.out_channels, spec.se_reduction) if spec.se_reduction else None
        self.drop = StochasticDepth(spec.stochastic_depth, "row") if spec.stochastic_depth else None

    @property
    def convs(self) -> list[ConvNormAct]:
        """The convolutions of F(x), in the order in which they run."""
        return [getattr(self, name) for name in self.conv_names]

    @property
    def shortcut_norm(self) -> str | Callable:
        return self.spec.norm

    def add_convs(self) -> None:
        """Call :meth:`add_conv` for each convolution of F(x)."""
        raise NotImplementedError

    def add_conv(self, in_channels: int, channels: int, kernel_size: int, *, deform: bool = False, **kwargs) -> None:
        """Add the next convolution: ``conv1``, ``conv2``, ...

        Args:
            deform: make it deformable if the spec says so; ``<name>_offset`` then says where it samples.
            kwargs: stride, dilation, groups, activation of the unit.
        """
        name, unit = f"conv{len(self.conv_names) + 1}", self.unit
        if deform and self.spec.deform is not None:
            unit = DeformConvNormAct
            stride, dilation = kwargs.get("stride", 1), kwargs["dilation"]
            self.add_module(
                f"{name}_offset", OffsetConv(in_channels, self.spec.deform, stride=stride, dilation=dilation)
            )
        self.add_module(name, unit(in_channels, channels, kernel_size, norm=self.spec.norm, **kwargs))
        self.conv_names.append(name)

    def run_convs(self, x: torch.Tensor, names: list[str]) -> torch.Tensor:
        """The convolutions ``names``, one after the other."""
        for name in names:
            conv = getattr(self, name)
            sampling = getattr(self, f"{name}_offset")(x) if isinstance(conv, DeformConvNormAct) else ()
            x = conv(x, *sampling)
        return x

    def finish_residual(self, x: torch.Tensor) -> torch.Tensor:
        """Squeeze-and-excitation and stochastic depth, which stand behind the last convolution."""
        if self.se is not None:
            x = self.se(x)
        return x if self.drop is None else self.drop(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = getattr(self, self.conv_names[-1])
        if self.spec.shortcut == "none":
            return F.relu_(self.finish_residual(self.run_convs(x, self.conv_names)))
        if self.se is None and self.drop is None and not isinstance(last, DeformConvNormAct):
            out = self.run_convs(x, self.conv_names[:-1])
            if self.shortcut is None:
                return last(out, x)
            return last(out, self.shortcut(x), overwrite=not self.shortcut._forward_hooks)
        out = self.finish_residual(self.run_convs(x, self.conv_names))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and ResNet-34 (arXiv 1512.03385, figure 5, left)."""

    last_activation: Callable | None = None

    def add_convs(self) -> None:
        spec, channels = self.spec, self.spec.out_channels
        self.add_conv(spec.in_channels, channels, 3, stride=spec.stride, dilation=spec.dilation)
        self.add_conv(channels, channels, 3, dilation=spec.dilation, activation=self.last_activation, deform=True)


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions, as in ResNet-50 and deeper (arXiv 1512.03385, figure 5; groups: 1611.05431)."""

    last_activation: Callable | None = None

    def add_convs(self) -> None:
        spec, width = self.spec, self.spec.bottleneck_channels
        # MSRA's ResNets stride in the first 1x1 convolution, torchvision's and all ResNeXts in the 3x3.
        stride_1x1, stride_3x3 = (spec.stride, 1) if spec.stride_in_1x1 else (1, spec.stride)
        self.add_conv(spec.in_channels, width, 1, stride=stride_1x1)
        self.add_conv(width, width, 3, stride=stride_3x3, dilation=spec.dilation, groups=spec.num_groups, deform=True)
        self.add_conv(width, spec.out_channels, 1, activation=self.last_activation)


class PreactMixin:
    """Makes a block pre-activated: norms and activations stand before the convolutions (arXiv 1603.05027, figure 4e).

    A projection takes the activated input and has no norm, and nothing follows the sum.
    """

    unit = NormActConv
    shortcut_norm = ""
    last_activation = staticmethod(F.relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv1 = self.conv1
        activated = conv1.normalise(x)
        out = conv1.convolve(activated, conv1.weight, conv1.bias)
        out = self.finish_residual(self.run_convs(out, self.conv_names[1:]))
        if self.spec.shortcut != "none":
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
