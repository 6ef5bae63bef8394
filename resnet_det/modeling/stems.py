"""Stems: what stands before res2, and brings all but tiny images to a quarter of their size."""

from __future__ import annotations

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase

from resnet_det.modeling.layers import make_conv
from resnet_det.specs import STEM_STRIDES, ResNetSpec


class Stem(CNNBlockBase):
    """Convolutions ``conv1``, ``conv2``, ..., the first of stride 2, then 3x3 max pooling of stride 2.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / 4), ceil(W / 4)); with ``stride`` 1 H and W stay.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        kernel_size: int,
        norm: str | Callable,
        *,
        for_preact: bool,
        stride: int = 4,
    ) -> None:
        """
        Args:
            widths: output channels of each convolution.
            for_preact: leave out the last norm and activation, which pre-activation blocks bring themselves.
            stride: of the whole: 4, or 1 (no convolution strides, and nothing is pooled).
        """
        super().__init__(in_channels, widths[-1], stride)
        self.conv_names = [f"conv{number}" for number in range(1, len(widths) + 1)]
        self.ends_activated = not for_preact
        for name, before, width in zip(self.conv_names, (in_channels, *widths), widths, strict=False):
            conv_norm = "" if for_preact and name == self.conv_names[-1] else norm
            conv_stride = 2 if name == "conv1" and stride == 4 else 1
            self.add_module(name, make_conv(before, width, kernel_size, stride=conv_stride, norm=conv_norm))
        for name in self.conv_names:
            weight_init.c2_msra_fill(getattr(self, name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.conv_names:
            x = getattr(self, name)(x)
            if self.ends_activated or name != self.conv_names[-1]:
                x = F.relu_(x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1) if self.stride == 4 else x


class BasicStem(Stem):
    """One 7x7 convolution (arXiv 1512.03385, table 1)."""

    def __init__(
        self, in_channels: int = 3, out_channels: int = 64, norm: str | Callable = "BN", *, for_preact: bool = False
    ) -> None:
        super().__init__(in_channels, (out_channels,), 7, norm, for_preact=for_preact)


class SmallStem(Stem):
    """One 3x3 convolution that keeps the resolution, for images of 32 pixels (arXiv 1512.03385, section 4.2)."""

    def __init__(
        self, in_channels: int = 3, out_channels: int = 16, norm: str | Callable = "BN", *, for_preact: bool = False
    ) -> None:
        super().__init__(in_channels, (out_channels,), 3, norm, for_preact=for_preact, stride=STEM_STRIDES["3x3"])


class DeepStem(Stem):
    """Three 3x3 convolutions (ResNet-C of arXiv 1812.01187, section 4.2; DeepLab's stem in Detectron2)."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        norm: str | Callable = "BN",
        *,
        tiered: bool = False,
        for_preact: bool = False,
    ) -> None:
        """
        Args:
            tiered: the first convolution is narrower than the second, as in timm's.
        """
        half = out_channels // 2
        widths = (half * 3 // 4 if tiered else half, half, out_channels)
        super().__init__(in_channels, widths, 3, norm, for_preact=for_preact)


_STEMS = {
    "7x7": (BasicStem, {}),
    "deep": (DeepStem, {}),
    "deep_tiered": (DeepStem, {"tiered": True}),
    "3x3": (SmallStem, {}),
}


def make_stem(spec: ResNetSpec) -> Stem:
    """The stem that ``spec`` names."""
    stem, kwargs = _STEMS[spec.stem]
    return stem(spec.in_channels, spec.stem_out_channels, spec.norm, for_preact=spec.preact, **kwargs)
