"""The table of depths: which blocks, and how many, make a ResNet of so many weighted layers. No torch."""

from __future__ import annotations

from dataclasses import dataclass


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


def depths_of(block: str) -> str:
    """The depths in the table that use ``block``, for messages."""
    return ", ".join(str(depth) for depth, spec in DEPTHS.items() if spec.block == block)
