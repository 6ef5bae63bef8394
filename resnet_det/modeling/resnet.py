"""The ResNet backbone."""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from resnet_det.modeling.blocks import BLOCKS
from resnet_det.modeling.layers import Stem
from resnet_det.specs import ResNetSpec


class ResNet(Backbone):
    """A ResNet (arXiv 1512.03385) built from its spec: ``stem``, then the stages ``res2`` .. ``res5``.

    Stages are ordinary submodules and are looked up by name at each call, so replacing one (``net.res5 = ...``) takes
    effect. State names and shapes are those of Detectron2's ResNet.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = Stem(spec.in_channels, spec.stem_out_channels, spec.norm)
        weight_init.c2_msra_fill(self.stem.conv1)
        for name in spec.built_stages:
            self.add_module(name, nn.Sequential(*(BLOCKS[spec.block](block) for block in spec.blocks_of(name))))
        self.freeze(spec.freeze_at)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name, finest first.

        Shapes:
            x: (N, in_channels, H, W); each output: see :meth:`output_shape`, its sides rounded up.

        Raises:
            ValueError: ``x`` is not a batch of images with the channels of the spec.
        """
        if x.dim() != 4 or x.shape[1] != self.spec.in_channels:
            raise ValueError(f"the backbone takes (N, {self.spec.in_channels}, H, W), got {tuple(x.shape)}")
        outputs = {}
        for name in ("stem", *self.spec.built_stages):
            x = getattr(self, name)(x)
            if name in self.spec.out_features:
                outputs[name] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in the order of the spec's ``out_features``."""
        shapes = {"stem": ShapeSpec(channels=self.stem.out_channels, stride=self.stem.stride)}
        stride = self.stem.stride
        for name in self.spec.built_stages:
            blocks = self.spec.blocks_of(name)
            stride *= blocks[0].stride
            shapes[name] = ShapeSpec(channels=blocks[-1].out_channels, stride=stride)
        return {name: shapes[name] for name in self.spec.out_features}

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Make the first ``freeze_at`` parts (the stem, res2, ...) untrainable, their BatchNorm turned into FrozenBN.

        Returns:
            This ResNet.
        """
        for name in ("stem", *self.spec.built_stages)[:freeze_at]:
            part = getattr(self, name)
            for block in part if isinstance(part, nn.Sequential) else [part]:
                block.freeze()
        return self

    @property
    def padding_constraints(self) -> dict[str, int]:
        """No constraint (Detectron2 main asks every backbone; v0.5 does not)."""
        return {}
