"""What a ResNet is made of, in plain values: the table of depths, and specs that modules are built from. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

# Parts that are chosen by name; modeling has a class for each. A stem has the stride behind its name.
STEM_STRIDES = {"7x7": 4, "deep": 4, "deep_tiered": 4, "3x3": 1}
SHORTCUT_NAMES = ("projection", "avg_down", "pad", "none")

# Output channels of a stage, divided by the channels of its 3x3 convolutions at 64 channels per group.
BLOCK_EXPANSION = {"basic": 1, "bottleneck": 4}

NORM_NAMES = ("", "FrozenBN", "BN", "SyncBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def name_stages(count: int) -> tuple[str, ...]:
    """Names of the first ``count`` stages: res2, res3, ..."""
    return tuple(f"res{number}" for number in range(2, 2 + count))


@dataclass(frozen=True)
class DepthSpec:
    """The block and the number of blocks in res2 to res5 behind a depth."""

    block: str
    stage_blocks: tuple[int, ...]


# arXiv 1512.03385, table 1; 200 is of 1603.05027, section 5; 10, 14 and 26 are timm's (one, two blocks a stage).
# This is the only place where depths are written down.
DEPTHS = {
    10: DepthSpec("basic", (1, 1, 1, 1)),
    14: DepthSpec("bottleneck", (1, 1, 1, 1)),
    18: DepthSpec("basic", (2, 2, 2, 2)),
    26: DepthSpec("bottleneck", (2, 2, 2, 2)),
    34: DepthSpec("basic", (3, 4, 6, 3)),
    50: DepthSpec("bottleneck", (3, 4, 6, 3)),
    101: DepthSpec("bottleneck", (3, 4, 23, 3)),
    152: DepthSpec("bottleneck", (3, 8, 36, 3)),
    200: DepthSpec("bottleneck", (3, 24, 36, 3)),
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
    """One residual block. Channel counts and ``stride`` are those of the whole block.

    Args:
        bottleneck: what a bottleneck takes and a basic block does not: ``bottleneck_channels``, ``num_groups``,
            ``stride_in_1x1``.
    """

    in_channels: int
    out_channels: int
    bottleneck: dict[str, int | bool] = field(default_factory=dict)
    stride: int = 1
    dilation: int = 1
    norm: str | Callable = "BN"
    deform: DeformSpec | None = None
    shortcut: str = "projection"
    se_reduction: int = 0
    zero_init_residual: bool = False
    stochastic_depth: float = 0.0

    @property
    def arguments(self) -> dict[str, object]:
        """What the constructor of the block takes."""
        arguments = {each.name: getattr(self, each.name) for each in fields(self)}
        return arguments | arguments.pop("bottleneck")


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A whole ResNet. Every ``None`` follows from the other fields, and is replaced by what follows.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        stage_blocks: number of blocks of each stage: res2, res3, ... There are as many stages as numbers.
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
        multi_grid: factors of the dilation of each block of the last stage (arXiv 1706.05587, section 3.1); empty: all
            1.
        deform_stages: which stages use deformable convolution, and ``deform``: of which kind.
        stem: "7x7"; "deep" (three 3x3 convolutions: ResNet-C of arXiv 1812.01187, section 4.2); "deep_tiered" (timm's:
            deep, and narrower at the start); "3x3" (one convolution at full resolution: 1512.03385, section 4.2).
        shortcut: what a block adds where the shape changes: "projection" (1x1 convolution, strided: option B of
            1512.03385), "avg_down" (average pooling, then a 1x1 convolution: ResNet-D of 1812.01187), "pad" (every
            ``stride``-th pixel, and zeros for new channels, as many before as behind: option A); "none" adds nothing
            anywhere, which makes the plain net of 1512.03385.
        preact: pre-activation blocks (ResNet-v2, 1603.05027): norm and activation stand before each convolution, and
            once more behind the last stage.
        se_reduction: squeeze-and-excitation with so many times fewer channels (1709.01507; usually 16); 0: none.
        zero_init_residual: each block starts as its shortcut: the last norm's weight is zero (1706.02677, section 5.1).
        stochastic_depth: chance of skipping the last block; it grows linearly from the first (1603.09382).
        checkpoint_stages: which stages save memory in training by computing their blocks again.
        out_features: names of the outputs, out of "stem", the stages and "linear"; None: the last stage. Stages behind
            the last of them are not built.
        num_classes: classes of the pooled, linear classification head, whose output is "linear"; None: no head.
        freeze_at: 1 freezes the stem, 2 also res2, 3 also res3, ...; 0 or less freezes nothing.
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
    dilations: tuple[int, ...] | None = None
    multi_grid: tuple[int, ...] = ()
    deform_stages: tuple[bool, ...] | None = None
    deform: DeformSpec = DeformSpec()
    stem: str = "7x7"
    shortcut: str = "projection"
    preact: bool = False
    se_reduction: int = 0
    zero_init_residual: bool = False
    stochastic_depth: float = 0.0
    checkpoint_stages: tuple[bool, ...] | None = None
    out_features: tuple[str, ...] | None = None
    num_classes: int | None = None
    freeze_at: int = 0

    def __post_init__(self) -> None:
        count = len(self.stage_blocks)
        defaults = {
            "dilations": (1,) * count,
            "deform_stages": (False,) * count,
            "checkpoint_stages": (False,) * count,
            "out_features": name_stages(count)[-1:],
        }
        for name in ("stage_blocks", "multi_grid", *defaults):
            value = getattr(self, name)
            object.__setattr__(self, name, defaults[name] if value is None else tuple(value))
        problems = check_resnet_spec(self)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """res2, res3, ...: a name for each of ``stage_blocks``."""
        return name_stages(len(self.stage_blocks))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What may be in ``out_features``, in the order of computation."""
        return ("stem", *self.stage_names, *(["linear"] if self.num_classes else []))

    @property
    def built_stages(self) -> tuple[str, ...]:
        """Names of the stages up to the last one in ``out_features``."""
        last = max(self.feature_names.index(name) for name in self.out_features)
        return self.stage_names[:last]

    @property
    def strides(self) -> dict[str, int]:
        """Stride of the stem and of each built stage, in input pixels."""
        strides = {"stem": STEM_STRIDES[self.stem]}
        for name in self.built_stages:
            strides[name] = list(strides.values())[-1] * self.blocks_of(name)[0].stride
        return strides

    def blocks_of(self, stage: str) -> tuple[BlockSpec, ...]:
        """Specs of the blocks of ``stage``: the first may stride and change the channels."""
        index = self.stage_names.index(stage)
        res2_channels = self.res2_out_channels or 64 * BLOCK_EXPANSION[self.block]
        out_channels = res2_channels * 2**index
        dilation = self.dilations[index]
        is_last = index == len(self.stage_blocks) - 1
        grid = self.multi_grid if is_last and self.multi_grid else (1,) * self.stage_blocks[index]
        bottleneck = {
            "bottleneck_channels": self.num_groups * self.width_per_group * 2**index,
            "num_groups": self.num_groups,
            "stride_in_1x1": self.stride_in_1x1,
        }
        before, total = sum(self.stage_blocks[:index]), sum(self.stage_blocks)
        return tuple(
            BlockSpec(
                in_channels=out_channels if position else (out_channels // 2 if index else self.stem_out_channels),
                out_channels=out_channels,
                bottleneck=bottleneck if self.block == "bottleneck" else {},
                stride=2 if position == 0 and index > 0 and dilation == 1 else 1,
                dilation=dilation * grid[position],
                norm=self.norm,
                deform=self.deform if self.deform_stages[index] else None,
                shortcut=self.shortcut,
                se_reduction=self.se_reduction,
                zero_init_residual=self.zero_init_residual,
                stochastic_depth=self.stochastic_depth * (before + position) / max(1, total - 1),
            )
            for position in range(self.stage_blocks[index])
        )


def check_resnet_spec(spec: ResNetSpec) -> list[str]:
    """Everything that is wrong with ``spec``, each with what would be right."""
    problems = []

    def require(holds: bool, problem: str) -> None:
        if not holds:
            problems.append(problem)

    for name, known in (("block", BLOCK_EXPANSION), ("stem", STEM_STRIDES), ("shortcut", SHORTCUT_NAMES)):
        value = getattr(spec, name)
        require(value in known, f"{name} is {value!r}; choose one of {', '.join(known)}")
    if not spec.stage_blocks:
        return [*problems, "stage_blocks is empty; give the number of blocks of each stage, such as 3, 4, 6, 3"]
    stages = ", ".join(spec.stage_names)
    for name in ("dilations", "deform_stages", "checkpoint_stages"):
        values = getattr(spec, name)
        require(
            len(values) == len(spec.stage_blocks),
            f"{name} is {list(values)}; this ResNet has {len(spec.stage_blocks)} stages: give a value for each of "
            f"{stages}",
        )
    for name in ("stage_blocks", "dilations"):
        require(
            all(value >= 1 for value in getattr(spec, name)),
            f"{name} is {list(getattr(spec, name))}; each must be at least 1",
        )
    for name in ("in_channels", "stem_out_channels", "num_groups", "width_per_group"):
        require(getattr(spec, name) >= 1, f"{name} is {getattr(spec, name)}; it must be at least 1")
    most = 1 + len(spec.stage_blocks)
    require(
        spec.freeze_at <= most,
        f"freeze_at is {spec.freeze_at}; choose 0 (nothing) to {most} (stem and {stages})",
    )
    if spec.multi_grid:
        num_blocks = spec.stage_blocks[-1]
        require(
            len(spec.multi_grid) == num_blocks and min(spec.multi_grid) >= 1,
            f"multi_grid is {list(spec.multi_grid)}; give a factor of at least 1 for each of the {num_blocks} blocks "
            f"of {spec.stage_names[-1]}",
        )
    require(
        callable(spec.norm) or spec.norm in NORM_NAMES,
        f"norm is {spec.norm!r}; choose one of {', '.join(filter(None, NORM_NAMES))}",
    )
    problems += check_names("out_features", spec.out_features, spec.feature_names)
    require(spec.se_reduction >= 0, f"se_reduction is {spec.se_reduction}; give 0 (none) or more (usually 16)")
    require(0 <= spec.stochastic_depth < 1, f"stochastic_depth is {spec.stochastic_depth}; give a chance in [0, 1)")
    require(
        not (spec.zero_init_residual and (spec.preact or spec.norm in ("", "FrozenBN"))),
        "zero_init_residual needs a trainable norm at the end of each block: no preact, no FrozenBN",
    )
    require(not (spec.preact and any(spec.deform_stages)), "preact blocks have no deformable convolution")
    if spec.shortcut == "pad" and spec.block in BLOCK_EXPANSION:
        res2_channels = spec.res2_out_channels or 64 * BLOCK_EXPANSION[spec.block]
        require(
            spec.stem_out_channels <= res2_channels,
            f"shortcut pad adds channels and takes none away: res2_out_channels is {res2_channels}, "
            f"stem_out_channels {spec.stem_out_channels}; give at most {res2_channels}",
        )
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


def make_spec(
    depth: int = 50, *, block: str | None = None, stage_blocks: Sequence[int] | None = None, **fields: object
) -> ResNetSpec:
    """The spec of a ResNet of ``depth``, or of own ``stage_blocks``.

    Args:
        depth: one of ``DEPTHS``; not looked at if ``stage_blocks`` and ``block`` are given.
        block, stage_blocks: None takes those of ``depth``.
        fields: the other fields of :class:`ResNetSpec`.

    Raises:
        ValueError: a value that no ResNet can have; ``block`` contradicts ``depth``.
    """
    if stage_blocks is None or block is None:
        found = find_depth(depth)
        if stage_blocks is None and block not in (None, found.block):
            raise ValueError(
                f"block is {block!r}, but depth {depth} has {found.block} blocks; "
                "leave block out, or give stage_blocks with it"
            )
        block = block or found.block
        stage_blocks = stage_blocks or found.stage_blocks
    return ResNetSpec(block=block, stage_blocks=stage_blocks, **fields)
