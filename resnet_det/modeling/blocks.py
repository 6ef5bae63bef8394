"""Residual blocks: H(x) = F(x) + x (arXiv 1512.03385, section 3)."""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase
from torch import nn

from resnet_det.modeling.layers import ConvNormAct, DeformConvNormAct, OffsetConv
from resnet_det.specs import BlockSpec


class ResidualBlock(CNNBlockBase):
    """What all blocks share: the shortcut, the 3x3 convolution that may be deformable, and the sum.

    A subclass builds its convolutions, in Detectron2's order and under its names, and says in :meth:`residual` what
    F(x) is.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec.in_channels, spec.out_channels, spec.stride)
        # arXiv 1512.03385, section 3.3, option B: a projection only where the shape changes.
        self.shortcut = None
        if spec.in_channels != spec.out_channels or spec.stride != 1:
            self.shortcut = ConvNormAct(
                spec.in_channels, spec.out_channels, 1, stride=spec.stride, norm=spec.norm, activation=None
            )

    def add_spatial_conv(self, name: str, spec: BlockSpec, in_channels: int, channels: int, stride: int) -> None:
        """Add a 3x3 convolution ``name``; a deformable one brings ``<name>_offset``, which says where it samples."""
        conv_class = ConvNormAct
        if spec.deform is not None:
            conv_class = DeformConvNormAct
            offset = OffsetConv(in_channels, spec.deform, stride=stride, dilation=spec.dilation)
            self.add_module(f"{name}_offset", offset)
        groups, dilation = spec.num_groups, spec.dilation
        self.add_module(
            name, conv_class(in_channels, channels, 3, stride=stride, dilation=dilation, groups=groups, norm=spec.norm)
        )

    def spatial_conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        conv = getattr(self, name)
        if isinstance(conv, DeformConvNormAct):
            return conv(x, *getattr(self, f"{name}_offset")(x))
        return conv(x)

    def init_weights(self, *names: str) -> None:
        """He initialisation (arXiv 1502.01852) of the convolutions ``names``, then of the shortcut."""
        for name in (*names, "shortcut"):
            layer = getattr(self, name)
            if layer is not None:
                weight_init.c2_msra_fill(layer)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x), before the sum."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.residual(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and ResNet-34 (arXiv 1512.03385, figure 5, left)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        self.conv1 = ConvNormAct(
            spec.in_channels, spec.out_channels, 3, stride=spec.stride, dilation=spec.dilation, norm=spec.norm
        )
        self.add_spatial_conv("conv2", spec, spec.out_channels, spec.out_channels, stride=1)
        self.conv2.activation = None
        self.init_weights("conv1", "conv2")

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.spatial_conv("conv2", self.conv1(x))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions, as in ResNet-50 and deeper (arXiv 1512.03385, figure 5; groups: 1611.05431)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec)
        width = spec.bottleneck_channels
        # MSRA's ResNets stride in the first 1x1 convolution, torchvision's and all ResNeXts in the 3x3.
        stride_1x1, stride_3x3 = (spec.stride, 1) if spec.stride_in_1x1 else (1, spec.stride)
        self.conv1 = ConvNormAct(spec.in_channels, width, 1, stride=stride_1x1, norm=spec.norm)
        self.add_spatial_conv("conv2", spec, width, width, stride=stride_3x3)
        self.conv3 = ConvNormAct(width, spec.out_channels, 1, norm=spec.norm, activation=None)
        self.init_weights("conv1", "conv2", "conv3")

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(self.spatial_conv("conv2", self.conv1(x)))


BLOCKS: dict[str, type[nn.Module]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}
