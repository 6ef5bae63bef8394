"""What a ResNet is made of, in plain values: the table of depths, and specs that modules are built from. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

STAGE_NAMES = ("res2", "res3", "res4", "res5")
FEATURE_NAMES = ("stem", *STAGE_NAMES)

# Output channels of a stage, divided by the channels of its 3x3 convolutions at 64 channels per group.
BLOCK_EXPANSION = {"basic": 1, "bottleneck": 4}

NORM_NAMES = ("", "FrozenBN", "BN", "SyncBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


@dataclass(frozen=True)
class DepthSpec:
    """The block and the number of blocks in res2 to res5 behind a depth."""

    block: str
    stage_blocks: tuple[int, ...]


# arXiv 1512.03385, table 1. This is the only place where depths are written down.
DEPTHS = {
    18: DepthSpec("basic", (2, 2, 2, 2)),
    34: DepthSpec("basic", (3, 4, 6, 3)),
    50: DepthSpec("bottleneck", (3, 4, 6, 3)),
    101: DepthSpec("bottleneck", (3, 4, 23, 3)),
    152: DepthSpec("bottleneck", (3, 8, 36, 3)),
}


def find_depth(depth: int) -> DepthSpec:
    """The block and stages of a ResNet of ``depth`` weighted layers.

    Raises:
        ValueError: no ResNet of that depth is in the table.
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth is {depth!r}; choose one of {', '.join(map(str, DEPTHS))}")
    return DEPTHS[depth]


@dataclass(frozen=True, kw_only=True)
class DeformSpec:
    """Deformable convolution in a block: v1 (arXiv 1703.06211), or with ``modulated`` v2 (arXiv 1811.11168)."""

    modulated: bool = False
    num_groups: int = 1


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One residual block. Channel counts and ``stride`` are those of the whole block."""

    in_channels: int
    out_channels: int
    bottleneck_channels: int
    stride: int = 1
    dilation: int = 1
    num_groups: int = 1
    stride_in_1x1: bool = False
    norm: str | Callable = "BN"
    deform: DeformSpec | None = None


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A whole ResNet. Every ``None`` follows from the other fields.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        stage_blocks: number of blocks of res2, res3, res4, res5.
        in_channels: channels of the input image.
        stem_out_channels: channels of the stem, which every depth feeds into res2.
        res2_out_channels: output channels of res2; each later stage has twice as many. None: 64, or 256 with
        bottlenecks.
        num_groups, width_per_group: groups of the 3x3 convolutions and their channels in res2 (ResNeXt, arXiv
        1611.05431).
        stride_in_1x1: bottlenecks stride in the first 1x1 convolution (MSRA's weights) instead of the 3x3
        (torchvision's).
        norm: a name out of ``NORM_NAMES``, or a callable from a channel count to a module.
        dilations: of each stage's 3x3 convolutions. A dilated stage keeps its resolution (arXiv 1606.00915).
        deform_stages: which of res2 to res5 use deformable convolution, and ``deform``: of which kind.
        out_features: names of the outputs, out of "stem", "res2" .. "res5". Stages behind the last are not built.
        freeze_at: 1 freezes the stem, 2 also res2, ... 5 all.
    """

    block: str
    stage_blocks: tuple[int, ...]
    in_channels: int = 3
    stem_out_channels: int = 64
    res2_out_channels: int | None = None
    num_groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    norm: str | Callable = "BN"
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    deform_stages: tuple[bool, ...] = (False, False, False, False)
    deform: DeformSpec = DeformSpec()
    out_features: tuple[str, ...] = ("res5",)
    freeze_at: int = 0

    def __post_init__(self) -> None:
        problems = check_resnet_spec(self)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def built_stages(self) -> tuple[str, ...]:
        """Names of the stages up to the last one in ``out_features``."""
        last = max(FEATURE_NAMES.index(name) for name in self.out_features)
        return STAGE_NAMES[:last]

    def blocks_of(self, stage: str) -> tuple[BlockSpec, ...]:
        """Specs of the blocks of ``stage``: the first may stride and change the channels."""
        index = STAGE_NAMES.index(stage)
        res2_channels = self.res2_out_channels or 64 * BLOCK_EXPANSION[self.block]
        out_channels = res2_channels * 2**index
        dilation = self.dilations[index]
        return tuple(
            BlockSpec(
                in_channels=out_channels if position else (out_channels // 2 if index else self.stem_out_channels),
                out_channels=out_channels,
                bottleneck_channels=self.num_groups * self.width_per_group * 2**index,
                stride=2 if position == 0 and index > 0 and dilation == 1 else 1,
                dilation=dilation,
                num_groups=self.num_groups,
                stride_in_1x1=self.stride_in_1x1,
                norm=self.norm,
                deform=self.deform if self.deform_stages[index] else None,
            )
            for position in range(self.stage_blocks[index])
        )


def check_resnet_spec(spec: ResNetSpec) -> list[str]:
    """Everything that is wrong with ``spec``, each with what would be right."""
    problems = []

    def require(holds: bool, problem: str) -> None:
        if not holds:
            problems.append(problem)

    require(spec.block in BLOCK_EXPANSION, f"block is {spec.block!r}; choose one of {', '.join(BLOCK_EXPANSION)}")
    for name in ("stage_blocks", "dilations", "deform_stages"):
        values = getattr(spec, name)
        require(len(values) == 4, f"{name} is {list(values)}; give four values, for res2 to res5")
    for name in ("stage_blocks", "dilations"):
        require(
            all(value >= 1 for value in getattr(spec, name)),
            f"{name} is {list(getattr(spec, name))}; each must be at least 1",
        )
    for name in ("in_channels", "stem_out_channels", "num_groups", "width_per_group"):
        require(getattr(spec, name) >= 1, f"{name} is {getattr(spec, name)}; it must be at least 1")
    require(0 <= spec.freeze_at <= 5, f"freeze_at is {spec.freeze_at}; choose 0 (nothing) to 5 (stem and res2 to res5)")
    require(
        callable(spec.norm) or spec.norm in NORM_NAMES,
        f"norm is {spec.norm!r}; choose one of {', '.join(filter(None, NORM_NAMES))}",
    )
    problems += check_names("out_features", spec.out_features, FEATURE_NAMES)
    if spec.block == "basic":
        require(
            spec.num_groups == 1 and spec.width_per_group == 64,
            f"basic blocks (depths {depths_of('basic')}) have num_groups 1 and width_per_group 64, "
            f"not {spec.num_groups} and {spec.width_per_group}",
        )
    return problems


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Problems of a list of ``names`` that must be out of ``known``, not empty and without repeats."""
    if not names:
        return [f"{what} is empty; choose from {', '.join(known)}"]
    problems = [f"{what} has {name!r}; choose from {', '.join(known)}" for name in names if name not in known]
    if len(set(names)) < len(names):
        problems.append(f"{what} is {list(names)}; name each only once")
    return problems


def depths_of(block: str) -> str:
    """The depths in the table that use ``block``, for messages."""
    return ", ".join(str(depth) for depth, spec in DEPTHS.items() if spec.block == block)
