"""Feature pyramids (arXiv 1612.03144): Detectron2's FPN over our ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

from resnet_det.modeling.layers import make_unit
from resnet_det.modeling.resnet import ResNet
from resnet_det.specs import STAGE_NAMES, check_names

TOP_BLOCKS = ("max_pool", "p6p7")


class FeaturePyramid(FPN):
    """Detectron2's FPN, with the same state, made of our units: norms are folded, and channels stand side by side.

    Why not Detectron2's forward: its convolutions enter a context for warnings at each call, and it adds levels into
    new tensors.
    """

    def __init__(self, bottom_up: ResNet, in_features: list[str], *args: object) -> None:
        super().__init__(bottom_up, in_features, *args)
        units = {conv: make_unit(conv) for conv in (*self.lateral_convs, *self.output_convs)}
        self._stages: list[str] = []  # by which convolutions are looked up, so that replacing one takes effect
        for name, conv in list(self.named_children()):
            if conv in units:
                self.add_module(name, units[conv])
                if name.startswith("fpn_lateral"):
                    self._stages.append(name.removeprefix("fpn_lateral"))
        self.lateral_convs = [units[conv] for conv in self.lateral_convs]
        self.output_convs = [units[conv] for conv in self.output_convs]
        for unit in self.output_convs:  # no ReLU follows, whose gradient would turn with the last digits
            unit.use_winograd()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by level, finest first."""
        features = self.bottom_up(x)
        levels: list[torch.Tensor] = []
        merged = None
        for name, stage in zip(reversed(self.in_features), reversed(self._stages), strict=True):
            here = getattr(self, f"fpn_lateral{stage}")(features[name])
            if merged is not None:
                # Of neighbours with the same stride, as over dilated stages, the upper one is added as it is.
                here += F.interpolate(merged, size=here.shape[-2:], mode="nearest")
                if self._fuse_type == "avg":
                    here /= 2
            merged = here
            levels.insert(0, getattr(self, f"fpn_output{stage}")(merged))
        if self.top_block is not None:
            top_in = features.get(self.top_block.in_feature)
            if top_in is None:
                top_in = levels[self._out_features.index(self.top_block.in_feature)]
            levels.extend(self.top_block(top_in))
        return dict(zip(self._out_features, levels, strict=True))


class DilatedFPN(FeaturePyramid):
    """An FPN over a backbone with dilated stages, which have the stride of the stage before.

    Levels keep the names they have without dilation (p5 is made of res5, whatever its stride), and so does the state.
    """

    def __init__(self, bottom_up: ResNet, in_features: list[str], *args: object) -> None:
        with torch.device("meta"):  # FPN insists on strides that double: it is built over the net without dilation
            undilated = ResNet(replace(bottom_up.spec, dilations=(1, 1, 1, 1)))
        super().__init__(undilated, in_features, *args)
        self.bottom_up = bottom_up
        shapes, nominal = bottom_up.output_shape(), dict(self._out_feature_strides)
        for name, level in zip(in_features, self._out_features, strict=False):
            self._out_feature_strides[level] = shapes[name].stride
        last = self._out_features[len(in_features) - 1]
        for level in self._out_features[len(in_features) :]:
            self._out_feature_strides[level] = shapes[in_features[-1]].stride * nominal[level] // nominal[last]
        self._size_divisibility = shapes[in_features[-1]].stride


def make_fpn(
    bottom_up: ResNet,
    in_features: Sequence[str],
    *,
    out_channels: int = 256,
    norm: str = "",
    fuse_type: str = "sum",
    top_block: str = "max_pool",
) -> FPN:
    """An FPN with one level per feature of ``in_features`` (finest first) and one or two coarser ones.

    Args:
        bottom_up: the backbone whose outputs the levels are built on.
        out_channels: channels of every level.
        norm: normalisation of the lateral and output convolutions.
        fuse_type: "sum" or "avg" of a lateral feature and the level above.
        top_block: "max_pool" adds p6 by subsampling p5, the last level (Faster and Mask R-CNN); "p6p7" adds p6 and
            p7 by strided convolutions of res5 (RetinaNet, arXiv 1708.02002, section 4).

    Raises:
        ValueError: an argument is not among its choices, or the backbone has no such feature.
    """
    problems = check_names(
        "in_features of the FPN", in_features, [n for n in STAGE_NAMES if n in bottom_up.output_shape()]
    )
    if fuse_type not in ("sum", "avg"):
        problems.append(f"fuse_type is {fuse_type!r}; choose one of sum, avg")
    if top_block not in TOP_BLOCKS:
        problems.append(f"top_block is {top_block!r}; choose one of {', '.join(TOP_BLOCKS)}")
    elif top_block == "p6p7" and "res5" not in bottom_up.output_shape():
        problems.append("top_block p6p7 is built on res5, which the backbone does not output")
    if problems:
        raise ValueError("; ".join(problems))
    if top_block == "p6p7":
        top = LastLevelP6P7(bottom_up.output_shape()["res5"].channels, out_channels)
    else:
        top = LastLevelMaxPool()
        top.in_feature = f"p{in_features[-1].removeprefix('res')}"
    fpn_class = DilatedFPN if max(bottom_up.spec.dilations) > 1 else FeaturePyramid
    return fpn_class(bottom_up, list(in_features), out_channels, norm, top, fuse_type)
