"""Heads that OpenVINO computes, inside Detectron2's detectors: those on feature maps, and those on pooled boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from resnet_det.modeling.openvino_backbone import MULTIPLE, from_channels_last, refuse_other_devices, to_channels_last
from resnet_det.modeling.openvino_network import OpenVinoNetwork

BOX_HEADS = (FastRCNNConvFCHead, MaskRCNNConvUpsampleHead, KRCNNConvDeconvUpsampleHead)


class OpenVinoDenseHead(nn.Module):
    """A head over all levels of an FPN, such as an RPN's or RetinaNet's, that OpenVINO computes on the CPU.

    Shapes:
        features: (N, C, H, W) float32 of each level; out: what the head gives, lists with a tensor for each level.
    """

    def __init__(
        self,
        head: nn.Module,
        levels: Sequence[ShapeSpec],
        dtype: torch.dtype,
        backbone: Backbone,
        names: Sequence[str],
        samples: Sequence[torch.Tensor] = (),
    ) -> None:
        """
        Args:
            head: in evaluation mode; it takes a list of features, and gives two lists of as many tensors. It is not
                changed.
            levels: of its inputs.
            backbone: in torch; int8's ranges are taken from its features ``names`` of ``samples``, normalized images.

        Raises:
            ImportError, ValueError: see :class:`OpenVinoNetwork`.
        """
        super().__init__()
        self.num_levels = len(levels)
        sides = [max(2 * MULTIPLE // level.stride, 1) for level in levels]
        self.network = OpenVinoNetwork(
            _DenseHead(head),
            [torch.rand(2, side, side + 1, level.channels) for side, level in zip(sides, levels, strict=True)],
            [(-1, -1, -1, level.channels) for level in levels],
            dtype,
            samples,
            lambda sample: [to_channels_last(backbone(sample)[name]) for name in names],
            keeps_predictors=True,
        )

    @torch.no_grad()
    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        if len(features) != self.num_levels:
            raise ValueError(f"{len(features)} feature maps, and this head takes {self.num_levels}, as it was made for")
        for feature in features:
            refuse_other_devices(feature)
        found = list(map(from_channels_last, self.network(*map(to_channels_last, features))))
        return found[: len(features)], found[len(features) :]

    def extra_repr(self) -> str:
        return f"dtype={self.network.dtype}, levels={self.num_levels}"


class OpenVinoLayers(nn.Module):
    """The layers of a head of single boxes, that OpenVINO computes on the CPU.

    Shapes:
        x: (N, C, H, W) float32, the pooled features of N boxes, N from 0 up; out: (N, C', H', W') or (N, C') float32.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        shape: Sequence[int],
        dtype: torch.dtype,
        samples: Sequence[torch.Tensor] = (),
        *,
        ends_in_predictor: bool = False,
    ) -> None:
        """
        Args:
            layers: in evaluation mode; they are not changed.
            shape: (C, H, W).
            samples: (n, C, H, W) each, pooled features from which int8's ranges are taken.
            ends_in_predictor: the last layer outputs masks or keypoints; it stays in float32 where the others are int8.

        Raises:
            ImportError, ValueError: see :class:`OpenVinoNetwork`.
        """
        super().__init__()
        channels, height, width = shape
        self.network = OpenVinoNetwork(
            _Layers(layers),
            [torch.rand(2, height, width, channels)],
            [(-1, height, width, channels)],
            dtype,
            samples,
            to_channels_last,
            keeps_predictors=ends_in_predictor,
        )

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        refuse_other_devices(x)
        count = len(x)
        if not count:  # one of zeros says what shape the result has
            x = x.new_zeros(1, *x.shape[1:])
        (found,) = self.network(to_channels_last(x))
        return (torch.from_numpy(found) if found.ndim == 2 else from_channels_last(found))[:count]

    def extra_repr(self) -> str:
        return f"dtype={self.network.dtype}"


def use_openvino_layers_(
    head: nn.Sequential, shape: Sequence[int], dtype: torch.dtype, samples: Sequence[torch.Tensor] = ()
) -> None:
    """Let OpenVINO compute the layers of ``head``, one of BOX_HEADS, in place."""
    layers = nn.Sequential(*head)  # a layer that comes twice, twice: children() has it once
    for name in list(head._modules):
        delattr(head, name)
    for name in {"conv_norm_relus", "fcs"} & vars(head).keys():  # lists of the same layers
        delattr(head, name)
    is_predictor = type(head) is not FastRCNNConvFCHead  # after which Detectron2 has a predictor of its own
    made = OpenVinoLayers(layers, shape, dtype, samples, ends_in_predictor=is_predictor)
    head.add_module("layers_by_openvino", made)


class _DenseHead(nn.Module):
    """``head`` on features with the channels as the last axis, as all that it gives has it."""

    title = "head"

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = self.head([feature.permute(0, 3, 1, 2) for feature in features])
        return tuple(value.permute(0, 2, 3, 1) for value in (*first, *second))


class _Layers(nn.Module):
    """``layers`` on features with the channels as the last axis, as the result has it if it is a feature map."""

    title = "box, mask or keypoint head"

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.layers(x.permute(0, 3, 1, 2))
        return (out.permute(0, 2, 3, 1) if out.ndim == 4 else out,)
