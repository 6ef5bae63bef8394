"""The nets that are compared: those for CIFAR of arXiv 1512.03385, section 4.2, and what they become without parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError
from resnet_det.modeling import ResNet, make_resnet
from resnet_det.weights import read_tensors, to_detectron2_names

WIDTH = 16  # channels of the stem and res2


@dataclass(frozen=True)
class Net:
    """A net of ``depth`` weighted layers: 6n + 2, with n blocks of two 3x3 convolutions in each of three stages.

    Attributes:
        shortcut: "pad" (without weights: option A), "projection", or "none": the plain net.
        norm: "BN", or "" for none.
        stochastic_depth: chance of skipping the last block in training.
    """

    depth: int
    shortcut: str = "pad"
    norm: str = "BN"
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise InputError(f"depth {self.depth}: nets for CIFAR have 6n + 2 layers, such as 8, 14, 20, 56, 110, 1202")

    @property
    def is_plain(self) -> bool:
        return self.shortcut == "none"

    @property
    def name(self) -> str:
        """Such as "plain-56": what a reader calls it."""
        return f"{'plain' if self.is_plain else 'residual'}-{self.depth}"

    @property
    def stage_blocks(self) -> list[int]:
        return [(self.depth - 2) // 6] * 3

    def options(self) -> list[Any]:
        """KEY VALUE pairs of a config."""
        own = {
            "STAGE_BLOCKS": self.stage_blocks,
            "BLOCK": "basic",
            "STEM": "3x3",
            "SHORTCUT": self.shortcut,
            "STOCHASTIC_DEPTH": self.stochastic_depth,
        }
        theirs = {
            "NORM": self.norm,
            "STEM_OUT_CHANNELS": WIDTH,
            "RES2_OUT_CHANNELS": WIDTH,
            "OUT_FEATURES": ["res4"],
        }
        pairs = [(f"MODEL.RESNET_DET.{key}", value) for key, value in own.items()]
        pairs += [(f"MODEL.RESNETS.{key}", value) for key, value in theirs.items()]
        return [part for pair in pairs for part in pair]

    def build(self, num_classes: int, **fields: Any) -> ResNet:
        """With random weights, from torch's generator.

        Args:
            fields: other fields of :class:`resnet_det.specs.ResNetSpec`.
        """
        return make_resnet(
            block="basic",
            stage_blocks=self.stage_blocks,
            stem="3x3",
            shortcut=self.shortcut,
            norm=self.norm,
            stochastic_depth=self.stochastic_depth,
            stem_out_channels=WIDTH,
            res2_out_channels=WIDTH,
            num_classes=num_classes,
            **fields,
        )


def read_net(path: str | Path) -> Net:
    """The residual net whose weights are in a file. (Plain nets have the same ones as residual nets with "pad";
    :func:`resnet_det.explain.published.read_published` tells them apart.)

    Raises:
        InputError: the file cannot be read, or holds another net.
    """
    try:
        names = set(to_detectron2_names(read_tensors(path)).values())
    except InputError as error:
        raise InputError(f"--weights {error}" if str(path) in str(error) else f"--weights {path}: {error}") from None
    blocks = [sum(bool(re.fullmatch(rf"res{n}\.\d+\.conv2\.weight", name)) for name in names) for n in range(2, 7)]
    is_basic = "res2.0.conv3.weight" not in names
    if not is_basic or not blocks[0] or blocks != [blocks[0]] * 3 + [0, 0] or "linear.weight" not in names:
        raise InputError(
            f"--weights {path}: not a net for CIFAR with its head (three stages of as many basic blocks); its stages "
            f"have {', '.join(map(str, filter(None, blocks))) or 'no'} blocks"
        )
    return Net(6 * blocks[0] + 2, "projection" if "res3.0.shortcut.weight" in names else "pad")
