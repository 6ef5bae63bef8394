"""What a DenseNet (arXiv 1608.06993) is made of, in plain values. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from resnet_det.stage_specs import StagesSpec, check_stages, fill_stages


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec(StagesSpec):
    """A whole DenseNet-BC. Every ``None`` follows from the other fields, and is replaced by what follows.

    Args:
        stage_layers: number of layers of each stage (dense block): res2, res3, ... There are as many stages as numbers.
        growth_rate: channels that each layer adds.
        in_channels: channels of the input image.
        stem_out_channels: channels of the 7x7 stem.
        bottleneck_factor: channels of a layer's 1x1 convolution, in growth rates.
        norm: a name out of :data:`resnet_det.stage_specs.NORM_NAMES`, or a callable from a channel count to a module.
        checkpoint_stages, out_features, num_classes, freeze_at: see :class:`resnet_det.specs.ResNetSpec`.
    """

    stage_layers: tuple[int, ...]
    growth_rate: int = 32
    in_channels: int = 3
    stem_out_channels: int = 64
    bottleneck_factor: int = 4
    norm: str | Callable = "BN"
    checkpoint_stages: tuple[bool, ...] | None = None
    out_features: tuple[str, ...] | None = None
    num_classes: int | None = None
    freeze_at: int = 0

    stem = "7x7"
    preact = False  # the stem ends with norm and activation, and is followed by pooling

    def __post_init__(self) -> None:
        fill_stages(self, stage_layers=(), checkpoint_stages=(False,) * self.num_stages)
        problems = check_densenet_spec(self)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def num_stages(self) -> int:
        return len(self.stage_layers)

    @property
    def strides(self) -> dict[str, int]:
        """Stride of the stem and of each built stage, in input pixels."""
        return {"stem": 4, **{name: 4 * 2**index for index, name in enumerate(self.built_stages)}}

    def channels_of(self, stage: str) -> tuple[int, int]:
        """Channels that the layers of ``stage`` start from, and with which they end.

        Between two stages the channels are halved.
        """
        start = self.stem_out_channels
        for name, num_layers in zip(self.stage_names, self.stage_layers, strict=True):
            end = start + num_layers * self.growth_rate
            if name == stage:
                return start, end
            start = end // 2
        raise ValueError(f"{stage!r} is no stage; choose from {', '.join(self.stage_names)}")


def check_densenet_spec(spec: DenseNetSpec) -> list[str]:
    """Everything that is wrong with ``spec``, each with what would be right."""
    if not spec.stage_layers:
        return ["stage_layers is empty; give the number of layers of each stage, such as 6, 12, 24, 16"]
    names = ("growth_rate", "in_channels", "stem_out_channels", "bottleneck_factor")
    problems = [f"{name} is {getattr(spec, name)}; it must be at least 1" for name in names if getattr(spec, name) < 1]
    if min(spec.stage_layers) < 1:
        problems.append(f"stage_layers is {list(spec.stage_layers)}; each must be at least 1")
    return problems + check_stages(spec, ["checkpoint_stages"])


# arXiv 1608.06993, table 1; 161 is that of the authors' and torchvision's weights.
DENSENETS = {
    121: DenseNetSpec(stage_layers=(6, 12, 24, 16)),
    161: DenseNetSpec(stage_layers=(6, 12, 36, 24), growth_rate=48, stem_out_channels=96),
    169: DenseNetSpec(stage_layers=(6, 12, 32, 32)),
    201: DenseNetSpec(stage_layers=(6, 12, 48, 32)),
}


def make_densenet_spec(depth: int = 121, **fields: object) -> DenseNetSpec:
    """The spec of a DenseNet of ``depth``.

    Args:
        depth: one of ``DENSENETS``; not looked at if ``stage_layers`` are given.
        fields: fields of :class:`DenseNetSpec`.

    Raises:
        ValueError: no DenseNet of that depth is in the table, or a value that no DenseNet can have.
    """
    if "stage_layers" in fields:
        return DenseNetSpec(**fields)
    if depth not in DENSENETS:
        raise ValueError(f"depth is {depth!r}; choose one of {', '.join(map(str, DENSENETS))}")
    return replace(DENSENETS[depth], **fields)
