"""Backbones that OpenVINO computes, inside Detectron2's detectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from resnet_det.modeling.openvino_network import OpenVinoNetwork

MULTIPLE = 64  # sides of the example that is traced; those of images are free


class OpenVinoBackbone(Backbone):
    """A backbone, with its FPN, that OpenVINO computes on the CPU: the same features, without gradients.

    It can be deep-copied, pickled and called from several threads. It has no parameters, so no state: what is in it
    are the weights of the backbone that it was made of.

    Shapes:
        x: (N, C, H, W) float32, any size that the backbone takes; out: feature maps by name, float32, channels-last.
    """

    def __init__(
        self, backbone: Backbone, dtype: torch.dtype, samples: Sequence[torch.Tensor] = (), *, in_channels: int = 3
    ) -> None:
        """
        Args:
            backbone: in evaluation mode; it is not changed.
            dtype: float32, bfloat16, or int8 with ``samples``.
            samples: normalized images (1, C, H, W) as ``backbone`` takes them, from which int8's ranges are taken.
            in_channels: C.

        Raises:
            ImportError, ValueError: see :class:`OpenVinoNetwork`.
        """
        super().__init__()
        self._shapes = dict(backbone.output_shape())
        self._size_divisibility = backbone.size_divisibility
        self._padding_constraints = dict(getattr(backbone, "padding_constraints", {}))
        self._computed = list(self._shapes)
        self._subsampled = ""  # p5, of which p6 is every second pixel: OpenVINO loses its scale in int8
        if isinstance(getattr(backbone, "top_block", None), LastLevelMaxPool):
            self._computed.pop()
            self._subsampled = backbone.top_block.in_feature
        self.network = OpenVinoNetwork(
            _Features(backbone, self._computed),
            [torch.rand(2, in_channels, 2 * MULTIPLE, 3 * MULTIPLE)],
            [(-1, in_channels, -1, -1)],
            dtype,
            samples,
            lambda sample: sample.float().contiguous().numpy(),
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return dict(self._padding_constraints)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        refuse_other_devices(x)
        found = self.network(x.detach().float().contiguous().numpy())
        features = dict(zip(self._computed, map(from_channels_last, found), strict=True))
        if self._subsampled:
            subsampled = features[self._subsampled][:, :, ::2, ::2]
            features[list(self._shapes)[-1]] = subsampled.contiguous(memory_format=torch.channels_last)
        return features

    def extra_repr(self) -> str:
        return f"dtype={self.dtype}, outputs={list(self._shapes)}"


def refuse_other_devices(x: torch.Tensor) -> None:
    if x.device.type != "cpu":
        raise ValueError(f"the input is on {x.device}, and OpenVINO computes this part of the model on the CPU alone")


def to_channels_last(feature: torch.Tensor) -> np.ndarray:
    return feature.detach().float().permute(0, 2, 3, 1).contiguous().numpy()


def from_channels_last(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(value).permute(0, 3, 1, 2)


class _Features(nn.Module):
    """The features of ``backbone`` in the order of ``names``, with the channels as the last axis."""

    title = "backbone"

    def __init__(self, backbone: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, tuple(names)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(x)
        return tuple(features[name].permute(0, 2, 3, 1) for name in self.names)
