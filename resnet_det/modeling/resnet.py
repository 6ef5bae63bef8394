"""The ResNet backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from resnet_det.modeling.blocks import BLOCKS
from resnet_det.modeling.checkpointing import run_checkpointed
from resnet_det.modeling.norms import make_norm
from resnet_det.modeling.stems import make_stem
from resnet_det.specs import STAGE_NAMES, DeformSpec, ResNetSpec, make_spec

# With checkpointing, of so many blocks the first one's input is kept. Fewer keep more inputs; more are computed again
# more often.
SEGMENT = 4


class ResNet(Backbone):
    """A ResNet (arXiv 1512.03385) built from its spec: ``stem``, then the stages ``res2`` .. ``res5``.

    Stages are ordinary submodules and are looked up by name at each call, so replacing one (``net.res5 = ...``) takes
    effect. State names and shapes are those of Detectron2's ResNet; a classification head is ``linear``, and the norm
    behind the last pre-activation block ``final_norm``.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = make_stem(spec)
        block_class = BLOCKS[f"preact_{spec.block}" if spec.preact else spec.block]
        for name in spec.built_stages:
            self.add_module(name, nn.Sequential(*(block_class(block) for block in spec.blocks_of(name))))
        self.final_norm = self.linear = None
        if spec.built_stages == STAGE_NAMES:
            channels = spec.blocks_of("res5")[-1].out_channels
            if spec.preact:
                self.final_norm = make_norm(spec.norm, channels)
            if "linear" in spec.out_features:
                self.linear = nn.Linear(channels, spec.num_classes)
                nn.init.normal_(self.linear.weight, std=0.01)  # arXiv 1706.02677, section 5.1
                nn.init.zeros_(self.linear.bias)
        self.freeze(spec.freeze_at)
        # The order of values in memory alone: shapes, and what a checkpoint holds, stay.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name, in the order in which they are computed.

        Shapes:
            x: (N, in_channels, H, W); each feature map: see :meth:`output_shape`, its sides rounded up; "linear":
            logits (N, num_classes).

        Raises:
            ValueError: ``x`` is not a batch of images with the channels of the spec.
        """
        if x.dim() != 4 or x.shape[1] != self.spec.in_channels:
            raise ValueError(f"the backbone takes (N, {self.spec.in_channels}, H, W), got {tuple(x.shape)}")
        # Convolutions are fastest with the channels of a pixel side by side, and every layer keeps the order it gets.
        x = x.contiguous(memory_format=torch.channels_last)
        outputs = {}
        for name in ("stem", *self.spec.built_stages):
            x = self._run_part(name, x)
            if name in self.spec.out_features:
                outputs[name] = x
        if self.linear is not None:
            outputs["linear"] = self.linear(x.mean(dim=(2, 3)))
        return outputs

    def _run_part(self, name: str, x: torch.Tensor) -> torch.Tensor:
        part = getattr(self, name)
        if name != "stem" and self.training and self.spec.checkpoint_stages[STAGE_NAMES.index(name)]:
            for first in range(0, len(part), SEGMENT):
                x = run_checkpointed(part[first : first + SEGMENT], x)
        else:
            x = part(x)
        if name == "res5" and self.spec.preact:
            x = F.relu(x if self.final_norm is None else self.final_norm(x))
        return x

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in the order of the spec's ``out_features``; "linear" has no stride."""
        channels = {name: self.spec.blocks_of(name)[-1].out_channels for name in self.spec.built_stages}
        channels["stem"] = self.stem.out_channels
        shapes = {name: ShapeSpec(channels=channels[name], stride=stride) for name, stride in self.spec.strides.items()}
        shapes["linear"] = ShapeSpec(channels=self.spec.num_classes)
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


def make_resnet(
    depth: int = 50,
    *,
    block: str | None = None,
    stage_blocks: Sequence[int] | None = None,
    in_channels: int = 3,
    stem: str = "7x7",
    stem_out_channels: int = 64,
    res2_out_channels: int | None = None,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    shortcut: str = "projection",
    preact: bool = False,
    se_reduction: int = 0,
    norm: str | Callable = "BN",
    zero_init_residual: bool = False,
    stochastic_depth: float = 0.0,
    dilations: Sequence[int] = (1, 1, 1, 1),
    deform_stages: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    checkpoint_stages: Sequence[bool] = (False, False, False, False),
    out_features: Sequence[str] | None = None,
    num_classes: int | None = None,
    freeze_at: int = 0,
) -> ResNet:
    """A ResNet of ``depth``, with torchvision's conventions unless told otherwise. Arguments: see :class:`ResNetSpec`.

    Args:
        block, stage_blocks: None takes those of ``depth``.
        out_features: None gives "linear" if there are ``num_classes``, else res2 to res5.
        deform_modulated, deform_num_groups: see :class:`DeformSpec`.

    Raises:
        ValueError: an argument that no ResNet can have; all problems are listed.
    """
    if out_features is None:
        out_features = ("linear",) if num_classes else STAGE_NAMES
    return ResNet(
        make_spec(
            depth,
            block=block,
            stage_blocks=stage_blocks,
            in_channels=in_channels,
            stem=stem,
            stem_out_channels=stem_out_channels,
            res2_out_channels=res2_out_channels,
            num_groups=num_groups,
            width_per_group=width_per_group,
            stride_in_1x1=stride_in_1x1,
            shortcut=shortcut,
            preact=preact,
            se_reduction=se_reduction,
            norm=norm,
            zero_init_residual=zero_init_residual,
            stochastic_depth=stochastic_depth,
            dilations=tuple(dilations),
            deform_stages=tuple(deform_stages),
            deform=DeformSpec(modulated=deform_modulated, num_groups=deform_num_groups),
            checkpoint_stages=tuple(checkpoint_stages),
            out_features=tuple(out_features),
            num_classes=num_classes,
            freeze_at=freeze_at,
        )
    )
