"""What blocks do to what goes through them: how large their answers are, and what becomes of a net without one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from resnet_det.modeling import ResNet
from resnet_det.modeling.blocks import ResidualBlock

_BATCH = 100


@torch.no_grad()
def measure_responses(net: ResNet, images: torch.Tensor) -> dict[str, list[float]]:
    """How large the answers of layers and blocks are on images.

    Args:
        net: of blocks that are not pre-activated, in evaluation mode.
        images: (N, C, H, W) as it takes them.

    Returns:
        "layers": of each convolution in a block, the standard deviation of what it and its norm put out, before
        activation and sum (arXiv 1512.03385, figure 7). "blocks": of each block whose shortcut is the identity, the
        root mean square of what it adds, divided by that of its input: 0 for a block that is the identity.
    """
    sums: dict[nn.Module, torch.Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
    inputs: dict[nn.Module, torch.Tensor] = defaultdict(lambda: torch.zeros(3, dtype=torch.float64))
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    layers = [getattr(block, name) for block in blocks for name in block.conv_names]

    def moments(values: torch.Tensor) -> torch.Tensor:
        values = values.double()
        return torch.stack([torch.tensor(float(values.numel())), values.sum().cpu(), values.square().sum().cpu()])

    # Taken at once: the sum with the shortcut is made in place.
    def add_output(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        sums[layer] += moments(output)

    def add_input(block: nn.Module, args: tuple) -> None:
        inputs[block] += moments(args[0])

    hooks = [layer.register_forward_hook(add_output) for layer in layers]
    hooks += [block.register_forward_pre_hook(add_input) for block in blocks]
    try:
        for batch in images.split(_BATCH):
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()
    answers = []
    for block in blocks:
        if block.adds_input and block.shortcut is None:
            last = sums[getattr(block, block.conv_names[-1])]
            answers.append(math.sqrt(last[2] / inputs[block][2].clamp(min=1e-300)))
    return {"layers": [_deviation(*sums[layer].tolist()) for layer in layers], "blocks": answers}


def _deviation(count: float, total: float, squares: float) -> float:
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))


def removable_blocks(net: ResNet) -> list[tuple[str, int]]:
    """Stage and place of the blocks that a net can do without: all that keep the shape, or have a shortcut."""
    return [
        (name, place)
        for name in net.stage_names
        for place, block in enumerate(getattr(net, name))
        if block.adds_input or (block.stride == 1 and block.in_channels == block.out_channels)
    ]


@contextmanager
def without_block(net: ResNet, stage: str, place: int) -> Iterator[None]:
    """Within it, a block of ``net`` is its shortcut alone; that of a plain net hands on its input."""
    blocks = getattr(net, stage)
    block = blocks[place]
    blocks[place] = nn.Identity() if block.shortcut is None else nn.Sequential(block.shortcut, nn.ReLU())
    try:
        yield
    finally:
        blocks[place] = block
