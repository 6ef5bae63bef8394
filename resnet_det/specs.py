"""What a ResNet is made of, in plain values: specs that modules are built from. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from resnet_det.depths import depths_of, find_depth
from resnet_det.stage_specs import StagesSpec, check_stages, fill_stages

# Parts that are chosen by name; modeling has a class for each. A stem has the stride behind its name.
STEM_STRIDES = {"7x7": 4, "deep": 4, "deep_tiered": 4, "3x3": 1}
SHORTCUT_NAMES = ("projection", "avg_down", "pad", "none")

# Output channels of a stage, divided by the channels of its 3x3 convolutions at 64 channels per group.
BLOCK_EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True, kw_only=True)
class DeformSpec:
    """Deformable convolution in a block: v1 (arXiv 1703.06211), or with ``modulated`` v2 (arXiv 1811.11168)."""

    modulated: bool = False
    num_groups: int = 1


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """Self-attention in a bottleneck (arXiv 2101.11605): its heads, and the distances in rows or columns, from 0 to
    ``extent - 1``, that it tells apart. 42 positions of stride 32 are 1344 pixels."""

    num_heads: int = 4
    extent: int = 42


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One residual block. Channel counts and ``stride`` are those of the whole block.

    Args:
        bottleneck: what a bottleneck takes and a basic block does not: ``bottleneck_channels``, ``num_groups``,
            ``stride_in_1x1``, ``attention``.
    """

    in_channels: int
    out_channels: int
    bottleneck: dict[str, int | bool | AttentionSpec | None] = field(default_factory=dict)
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
class ResNetSpec(StagesSpec):
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
        attention_stages: in which stages self-attention stands in place of the 3x3 convolutions of bottlenecks (BoTNet,
            arXiv 2101.11605: the last), and ``attention``: of which kind. A dilated one keeps its resolution.
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
    attention_stages: tuple[bool, ...] | None = None
    attention: AttentionSpec = AttentionSpec()
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
        none = (False,) * self.num_stages
        fill_stages(
            self,
            stage_blocks=(),
            dilations=(1,) * self.num_stages,
            multi_grid=(),
            deform_stages=none,
            attention_stages=none,
            checkpoint_stages=none,
        )
        problems = check_resnet_spec(self)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def num_stages(self) -> int:
        return len(self.stage_blocks)

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
            "attention": self.attention if self.attention_stages[index] else None,
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
    problems += check_stages(spec, ["dilations", "deform_stages", "attention_stages", "checkpoint_stages"])
    for name in ("stage_blocks", "dilations"):
        require(
            all(value >= 1 for value in getattr(spec, name)),
            f"{name} is {list(getattr(spec, name))}; each must be at least 1",
        )
    for name in ("in_channels", "stem_out_channels", "num_groups", "width_per_group"):
        require(getattr(spec, name) >= 1, f"{name} is {getattr(spec, name)}; it must be at least 1")
    if spec.multi_grid:
        num_blocks = spec.stage_blocks[-1]
        require(
            len(spec.multi_grid) == num_blocks and min(spec.multi_grid) >= 1,
            f"multi_grid is {list(spec.multi_grid)}; give a factor of at least 1 for each of the {num_blocks} blocks "
            f"of {spec.stage_names[-1]}",
        )
    require(spec.se_reduction >= 0, f"se_reduction is {spec.se_reduction}; give 0 (none) or more (usually 16)")
    require(0 <= spec.stochastic_depth < 1, f"stochastic_depth is {spec.stochastic_depth}; give a chance in [0, 1)")
    require(
        not (spec.zero_init_residual and (spec.preact or spec.norm in ("", "FrozenBN"))),
        "zero_init_residual needs a trainable norm at the end of each block: no preact, no FrozenBN",
    )
    require(not (spec.preact and any(spec.deform_stages)), "preact blocks have no deformable convolution")
    if any(spec.attention_stages):
        problems += _check_attention(spec)
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


def _check_attention(spec: ResNetSpec) -> list[str]:
    heads, extent = spec.attention.num_heads, spec.attention.extent
    if min(heads, extent) < 1:
        return [f"attention_heads is {heads}, attention_extent {extent}; each must be at least 1"]
    problems = []
    if spec.block != "bottleneck" or spec.preact:
        problems.append("attention stands in bottlenecks without preact: set block to bottleneck, preact to False")
    if spec.num_groups > 1:
        problems.append(f"attention has heads in place of groups: num_groups is {spec.num_groups}; set it to 1")
    if any(one and other for one, other in zip(spec.attention_stages, spec.deform_stages, strict=False)):
        problems.append("a stage has attention or deformable convolution, not both")
    if spec.multi_grid and spec.attention_stages[-1]:
        problems.append(f"multi_grid is {list(spec.multi_grid)}, and attention has no dilation; leave one out")
    widths = [spec.width_per_group * 2**index for index, has in enumerate(spec.attention_stages) if has]
    if any(width % heads for width in widths):
        problems.append(f"attention_heads is {heads}, which does not divide the {min(widths)} channels of a bottleneck")
    return problems


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
