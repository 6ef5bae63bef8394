"""Feature pyramids (arXiv 1612.03144): Detectron2's FPN over our ResNet."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

from resnet_det.modeling.resnet import ResNet
from resnet_det.specs import check_names

TOP_BLOCKS = ("max_pool", "p6p7")


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
    problems = check_names("in_features of the FPN", in_features, list(bottom_up.output_shape()))
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
    return FPN(bottom_up, list(in_features), out_channels, norm, top, fuse_type)
