"""The DenseNet backbone (arXiv 1608.06993)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase
from torch import nn

from resnet_det.densenet_specs import DenseNetSpec, make_densenet_spec
from resnet_det.modeling.layers import PreactConv
from resnet_det.modeling.norms import make_norm
from resnet_det.modeling.resnet import ResNet
from resnet_det.modeling.stems import make_stem
from resnet_det.stage_specs import name_stages


class DenseLayer(CNNBlockBase):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution; what comes out is put behind the input's channels.

    Shapes:
        (N, in_channels, H, W) to (N, in_channels + growth_rate, H, W).
    """

    def __init__(self, in_channels: int, growth_rate: int, *, bottleneck_factor: int, norm: str | Callable) -> None:
        super().__init__(in_channels, in_channels + growth_rate, 1)
        width = bottleneck_factor * growth_rate
        self.conv1 = PreactConv(in_channels, width, 1, norm=norm)
        self.conv2 = PreactConv(width, growth_rate, 3, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, _activate_and_convolve(self.conv2, _activate_and_convolve(self.conv1, x))], dim=1)


class Transition(CNNBlockBase):
    """What stands before the layers of a stage but the first: norm, ReLU, 1x1 convolution, 2x2 average pooling.

    Shapes:
        (N, in_channels, H, W) to (N, out_channels, H // 2, W // 2): of an odd side the last pixels are left out, as in
        the weights that are published.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | Callable) -> None:
        super().__init__(in_channels, out_channels, 2)
        self.conv = PreactConv(in_channels, out_channels, 1, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(_activate_and_convolve(self.conv, x), 2)


def _activate_and_convolve(conv: PreactConv, x: torch.Tensor) -> torch.Tensor:
    return conv(F.relu(x if conv.norm is None else conv.norm(x)))


class DenseNet(ResNet):
    """A DenseNet with the parts of a ResNet: ``stem``, and stages ``res2``, ``res3``, ... of :class:`DenseLayer`, the
    first of a stage but res2 a :class:`Transition`.

    All that a ResNet has is there: outputs by name, freezing, checkpointing, the classification head. The last stage
    ends with a norm and a ReLU; the others put out what their layers have put together.
    """

    @classmethod
    def from_spec(cls, spec: DenseNetSpec) -> DenseNet:
        """The DenseNet that ``spec`` describes."""
        stem = make_stem(spec)
        stages, channels = [], 0
        for name in spec.stage_names:
            before, (start, end) = channels, spec.channels_of(name)
            blocks = [Transition(before, start, norm=spec.norm)] if stages else []
            blocks += [
                DenseLayer(width, spec.growth_rate, bottleneck_factor=spec.bottleneck_factor, norm=spec.norm)
                for width in range(start, end, spec.growth_rate)
            ]
            stages.append(blocks)
            channels = end
        net = cls(
            stem,
            stages,
            num_classes=spec.num_classes,
            out_features=list(spec.out_features),
            freeze_at=spec.freeze_at,
            final_norm=make_norm(spec.norm, channels) or nn.Identity(),
            checkpoint_stages=[n for n, keeps in zip(spec.stage_names, spec.checkpoint_stages, strict=True) if keeps],
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # as the authors'
        net.spec = spec
        return net


def make_densenet(depth: int = 121, *, out_features: Sequence[str] | None = None, **fields: Any) -> DenseNet:
    """A DenseNet of ``depth`` (121, 161, 169, 201), or of own ``stage_layers``.

    Args:
        out_features: None gives "linear" if there are ``num_classes``, else all stages.
        fields: the other fields of :class:`resnet_det.densenet_specs.DenseNetSpec`.

    Raises:
        ValueError: an argument that no DenseNet can have; all problems are listed.
    """
    if out_features is None and fields.get("num_classes"):
        out_features = ("linear",)
    elif out_features is None:
        out_features = name_stages(make_densenet_spec(depth, **fields).num_stages)
    return DenseNet.from_spec(make_densenet_spec(depth, out_features=out_features, **fields))
