"""Stems: what stands before res2 and brings the image to a quarter of its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase

from resnet_det.modeling.layers import ConvNormAct
from resnet_det.specs import ResNetSpec


class Stem(CNNBlockBase):
    """Convolutions, the first of stride 2, then 3x3 max pooling of stride 2.

    One convolution is 7x7 (arXiv 1512.03385, table 1); several are 3x3 (ResNet-C, 1812.01187, section 4.2). State:
    ``conv1``, ``conv2``, ... (the names of Detectron2's BasicStem and DeepLabStem).

    Shapes:
        (N, in_channels, H, W) to (N, channels[-1], ceil(H / 4), ceil(W / 4)).
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], norm: str | Callable, *, last_norm: bool = True
    ) -> None:
        """
        Args:
            channels: output channels of each convolution.
            last_norm: False leaves out the last norm and activation, which pre-activation blocks bring themselves.
        """
        super().__init__(in_channels, channels[-1], 4)
        kernel_size = 7 if len(channels) == 1 else 3
        self.conv_names = [f"conv{number}" for number in range(1, len(channels) + 1)]
        for name, width in zip(self.conv_names, channels, strict=True):
            stride = 2 if name == "conv1" else 1
            conv = ConvNormAct(in_channels, width, kernel_size, stride=stride, norm=norm)
            if name == self.conv_names[-1] and not last_norm:
                conv.norm = conv.activation = None
            weight_init.c2_msra_fill(conv)
            self.add_module(name, conv)
            in_channels = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.conv_names:
            x = getattr(self, name)(x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def make_stem(spec: ResNetSpec) -> Stem:
    """The stem that ``spec`` names."""
    return Stem(spec.in_channels, spec.stem_channels, spec.norm, last_norm=not spec.preact)
