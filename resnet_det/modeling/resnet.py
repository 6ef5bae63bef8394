"""The ResNet backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling import ResNet as Detectron2ResNet
from torch import nn

from resnet_det.depths import find_depth
from resnet_det.modeling.blocks import BLOCKS
from resnet_det.modeling.checkpointing import run_checkpointed
from resnet_det.modeling.norms import make_norm
from resnet_det.modeling.stems import make_stem
from resnet_det.modeling.views import ModuleLists, list_of_modules
from resnet_det.specs import BLOCK_EXPANSION, AttentionSpec, DeformSpec, ResNetSpec, make_spec
from resnet_det.stage_specs import check_names, name_stages

# With checkpointing, of so many blocks the first one's input is kept. Fewer keep more inputs; more are computed again
# more often.
SEGMENT = 4


class ResNet(ModuleLists, Detectron2ResNet):
    """A ResNet (arXiv 1512.03385): a stem, then the stages ``res2``, ``res3``, ... of residual blocks.

    It takes the same arguments as Detectron2's ResNet, has the same attributes, state names and outputs, and is one by
    ``isinstance``; no method is Detectron2's. Stages are looked up by name at each call, so that replacing one takes
    effect, as ``net.res5 = ...`` or as ``net.stages[3] = ...``.

    Attributes:
        spec: what :meth:`from_spec` made it of; None if it was made of a stem and blocks.
    """

    spec = None

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        *,
        final_norm: nn.Module | None = None,
        checkpoint_stages: Iterable[str] = (),
    ) -> None:
        """
        Args:
            stem: a module with ``out_channels`` and ``stride``.
            stages: blocks of each stage, usually four (:meth:`make_stage`). Those behind the last of ``out_features``
                are left out.
            num_classes: classes of a linear head behind the last stage; None: no head.
            out_features: names of the outputs, out of "stem", "res2", ... and "linear". None: the last one.
            freeze_at: see :meth:`freeze`.
            final_norm: what stands, before a ReLU, behind the last stage of pre-activation blocks.
            checkpoint_stages: names of stages that save memory in training by computing their blocks again.

        Raises:
            ValueError: a stage is empty or has something else than blocks; an output has no stage.
        """
        Backbone.__init__(self)
        self.stem, self.num_classes = stem, num_classes
        names = name_stages(len(stages))
        last = "linear" if num_classes is not None else ("stem", *names)[-1]
        self._out_features = [last] if out_features is None else out_features
        problems = check_names("out_features", self._out_features, ["stem", *names, *["linear"][: last == "linear"]])
        if problems:
            raise ValueError("; ".join(problems))
        if "linear" not in self._out_features:
            names = names[: max(("stem", *names).index(name) for name in self._out_features)]
        self.stage_names = names
        channels, stride = stem.out_channels, stem.stride
        self._out_feature_channels, self._out_feature_strides = {"stem": channels}, {"stem": stride}
        for name, blocks in zip(names, stages, strict=False):
            if not blocks or not all(isinstance(block, CNNBlockBase) for block in blocks):
                raise ValueError(f"{name} is made of {list(blocks)}; give at least one block, each a CNNBlockBase")
            self.add_module(name, nn.Sequential(*blocks))
            for block in blocks:
                channels, stride = block.out_channels, stride * block.stride
            self._out_feature_channels[name], self._out_feature_strides[name] = channels, stride
        self.final_norm = final_norm if len(names) == len(stages) else None
        self.checkpoint_stages = frozenset(checkpoint_stages)
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)  # arXiv 1706.02677, section 5.1
        self.freeze(freeze_at)

    @classmethod
    def from_spec(cls, spec: ResNetSpec) -> ResNet:
        """The ResNet that ``spec`` describes."""
        stem = make_stem(spec)
        block_class = BLOCKS[f"preact_{spec.block}" if spec.preact else spec.block]
        # All of them are made, even those that are left out: the random numbers drawn are then Detectron2's.
        stages = [[block_class(**block.arguments) for block in spec.blocks_of(name)] for name in spec.stage_names]
        final_norm = None
        if spec.preact:
            final_norm = make_norm(spec.norm, stages[-1][-1].out_channels) or nn.Identity()
        net = cls(
            stem,
            stages,
            num_classes=spec.num_classes,
            out_features=list(spec.out_features),
            freeze_at=spec.freeze_at,
            final_norm=final_norm,
            checkpoint_stages=[n for n, keeps in zip(spec.stage_names, spec.checkpoint_stages, strict=True) if keeps],
        )
        net.spec = spec
        return net

    stages = list_of_modules(
        lambda net: net.stage_names, "The stages in order; setting an item, or a list of as many, replaces them."
    )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name, in the order in which they are computed.

        Shapes:
            x: (N, C, H, W); each feature map: see :meth:`output_shape`, its sides rounded up; "linear": logits
            (N, num_classes).

        Raises:
            ValueError: ``x`` is not a batch of images.
        """
        if x.dim() != 4:
            raise ValueError(f"a ResNet takes (N, C, H, W), got {tuple(x.shape)}")
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for name in self.stage_names:
            stage = getattr(self, name)
            x = self._run_checkpointed(stage, x) if self.training and name in self.checkpoint_stages else stage(x)
            if name == self.stage_names[-1] and self.final_norm is not None:
                x = F.relu(self.final_norm(x))
            outputs[name] = x
        if self.num_classes is not None:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return {name: output for name, output in outputs.items() if name in self._out_features}

    @staticmethod
    def _run_checkpointed(stage: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if type(stage) is not nn.Sequential or stage._forward_hooks or stage._forward_pre_hooks:
            return run_checkpointed([stage], x)  # it has to be called as a whole
        for first in range(0, len(stage), SEGMENT):
            x = run_checkpointed(stage[first : first + SEGMENT], x)
        return x

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in the order of ``out_features``; "linear" has no stride."""
        shapes = {
            name: ShapeSpec(channels=channels, stride=self._out_feature_strides[name])
            for name, channels in self._out_feature_channels.items()
        }
        shapes["linear"] = ShapeSpec(channels=self.num_classes)
        return {name: shapes[name] for name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Make the first ``freeze_at`` parts (the stem, res2, ...) untrainable, their BatchNorm turned into FrozenBN.

        Args:
            freeze_at: 1 for the stem, 2 for res2 too, and so on; 0 or less: nothing.

        Returns:
            This ResNet.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for number, stage in enumerate(self.stages, start=2):
            if freeze_at >= number:
                for block in stage.children():
                    block.freeze()
        return self

    @property
    def size_divisibility(self) -> int:
        """0: images of any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """No constraint (Detectron2 main asks every backbone; v0.5 does not)."""
        return {}

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase], num_blocks: int, *, in_channels: int, out_channels: int, **kwargs: Any
    ) -> list[CNNBlockBase]:
        """Blocks of a stage: the first takes ``in_channels``, the others ``out_channels``.

        Args:
            kwargs: other arguments of ``block_class``; ``*_per_block`` is a list with a value for each block.

        Raises:
            ValueError: such a list has another length, or its argument is given in both forms.
        """
        blocks = []
        for index in range(num_blocks):
            arguments = {}
            for key, value in kwargs.items():
                name = key.removesuffix("_per_block")
                if name != key and len(value) != num_blocks:
                    raise ValueError(f"{key} has {len(value)} values; give one for each of the {num_blocks} blocks")
                if name != key and name in kwargs:
                    raise ValueError(f"make_stage got both {key} and {name}; leave one out")
                arguments[name] = value if name == key else value[index]
            blocks.append(block_class(in_channels=in_channels, out_channels=out_channels, **arguments))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """The four stages of a ResNet of ``depth``, for ``ResNet(stem, stages)`` and LazyConfig.

        Args:
            depth: one of the table in :mod:`resnet_det.depths`.
            block_class: None takes the block of ``depth``.
            kwargs: other arguments of the blocks, as in :meth:`make_stage`; channels and strides follow from ``depth``.

        Raises:
            ValueError: no ResNet has that depth.
        """
        found = find_depth(depth)
        stages, channels = [], 64
        for index, num_blocks in enumerate(found.stage_blocks):
            width = 64 * 2**index
            out_channels = width * BLOCK_EXPANSION[found.block]
            if found.block == "bottleneck":
                kwargs["bottleneck_channels"] = width
            stages.append(
                ResNet.make_stage(
                    block_class or BLOCKS[found.block],
                    num_blocks,
                    stride_per_block=[1 if index == 0 else 2] + [1] * (num_blocks - 1),
                    in_channels=channels,
                    out_channels=out_channels,
                    **kwargs,
                )
            )
            channels = out_channels
        return stages


def make_resnet(
    depth: int = 50,
    *,
    block: str | None = None,
    stage_blocks: Sequence[int] | None = None,
    out_features: Sequence[str] | None = None,
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    attention_heads: int = 4,
    attention_extent: int = 42,
    **fields: Any,
) -> ResNet:
    """A ResNet of ``depth``, with torchvision's conventions unless told otherwise.

    Args:
        block, stage_blocks: None takes those of ``depth``.
        out_features: None gives "linear" if there are ``num_classes``, else all stages.
        deform_modulated, deform_num_groups: see :class:`resnet_det.specs.DeformSpec`.
        attention_heads, attention_extent: see :class:`resnet_det.specs.AttentionSpec`.
        fields: the other fields of :class:`resnet_det.specs.ResNetSpec`, such as ``norm``, ``stem``, ``freeze_at``.

    Raises:
        ValueError: an argument that no ResNet can have; all problems are listed.
    """
    if out_features is None:
        count = len(find_depth(depth).stage_blocks if stage_blocks is None else stage_blocks)
        out_features = ("linear",) if fields.get("num_classes") else name_stages(count)
    deform = DeformSpec(modulated=deform_modulated, num_groups=deform_num_groups)
    attention = AttentionSpec(num_heads=attention_heads, extent=attention_extent)
    fields |= {"out_features": out_features, "deform": deform, "attention": attention}
    return ResNet.from_spec(make_spec(depth, block=block, stage_blocks=stage_blocks, **fields))
