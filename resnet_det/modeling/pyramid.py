"""Feature pyramids (arXiv 1612.03144): Detectron2's FPN over our ResNet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

from resnet_det.modeling.views import ModuleLists, list_of_modules
from resnet_det.stage_specs import check_names

TOP_BLOCKS = ("max_pool", "p6p7")


class FeaturePyramid(ModuleLists, FPN):
    """Detectron2's FPN, with the same layers and state, for images of any size.

    ``lateral_convs`` and ``output_convs`` are views of the submodules ``fpn_lateral5``, ``fpn_output5``, ...: replacing
    a convolution takes effect by name and in the list.
    """

    _levels: tuple[str, ...] = ()

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._levels = tuple(name.removeprefix("fpn_lateral") for name in self.conv_names("fpn_lateral"))

    lateral_convs = list_of_modules(
        lambda fpn: fpn.conv_names("fpn_lateral"), "The lateral convolutions, coarsest level first."
    )
    output_convs = list_of_modules(
        lambda fpn: fpn.conv_names("fpn_output"), "The output convolutions, coarsest level first."
    )

    def conv_names(self, prefix: str) -> list[str]:
        """Names of the convolutions that begin with ``prefix``, coarsest level first."""
        if self._levels:
            return [f"{prefix}{level}" for level in self._levels]
        return [name for name in self._modules if name.startswith(prefix)][::-1]  # while Detectron2's FPN adds them

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by level, finest first."""
        features = self.bottom_up(x)
        levels: list[torch.Tensor] = []
        above = None
        names = reversed(self.in_features)
        for name, lateral_conv, output_conv in zip(names, self.lateral_convs, self.output_convs, strict=True):
            here = lateral_conv(features[name])
            if above is not None:
                # Of neighbours with the same stride, as over dilated stages, the upper one is added as it is.
                here = here + F.interpolate(above, size=here.shape[-2:], mode="nearest")
                if self._fuse_type == "avg":
                    here /= 2
            above = here
            levels.insert(0, output_conv(here))
        if self.top_block is not None:
            top_in = features.get(self.top_block.in_feature)
            if top_in is None:
                top_in = levels[self._out_features.index(self.top_block.in_feature)]
            levels.extend(self.top_block(top_in))
        return dict(zip(self._out_features, levels, strict=True))


class FreeStridesFPN(FeaturePyramid):
    """An FPN over a backbone whose stages have other strides than 4, 8, 16, ...: some are dilated, or the stem does not
    stride.

    Levels keep the names they have with those strides (p5 is made of res5, whatever its stride), and so does the state.
    """

    def __init__(self, bottom_up: Backbone, in_features: list[str], *args: object) -> None:
        super().__init__(_WithUsualStrides(bottom_up), in_features, *args)
        self.bottom_up = bottom_up
        shapes, nominal = bottom_up.output_shape(), dict(self._out_feature_strides)
        for name, level in zip(in_features, self._out_features, strict=False):
            self._out_feature_strides[level] = shapes[name].stride
        last = self._out_features[len(in_features) - 1]
        for level in self._out_features[len(in_features) :]:
            self._out_feature_strides[level] = shapes[in_features[-1]].stride * nominal[level] // nominal[last]
        self._size_divisibility = shapes[in_features[-1]].stride


class _WithUsualStrides(Backbone):
    """A backbone that gives its stages the strides they usually have: Detectron2's FPN names levels by the stride, and
    insists on strides that double."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.backbone(x)

    def output_shape(self) -> dict[str, ShapeSpec]:
        shapes = self.backbone.output_shape()
        return {n: ShapeSpec(channels=shapes[n].channels, stride=2 ** _number(n)) for n in _find_stages(shapes)}


def _find_stages(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are stages (res2, res3, ...), finest first."""
    return sorted((name for name in names if re.fullmatch(r"res\d+", name)), key=_number)


def _number(stage: str) -> int:
    return int(stage.removeprefix("res"))


def make_fpn(
    bottom_up: Backbone,
    in_features: Sequence[str] | None = None,
    *,
    out_channels: int = 256,
    norm: str = "",
    fuse_type: str = "sum",
    top_block: str = "max_pool",
) -> FPN:
    """An FPN with one level per feature of ``in_features`` (finest first) and one or two coarser ones.

    Args:
        bottom_up: the backbone whose outputs the levels are built on.
        in_features: None takes all stages that it puts out.
        out_channels: channels of every level.
        norm: normalisation of the lateral and output convolutions.
        fuse_type: "sum" or "avg" of a lateral feature and the level above.
        top_block: "max_pool" adds a level by subsampling the last (p6 of p5: Faster and Mask R-CNN); "p6p7" adds two by
            strided convolutions of the backbone's last output (p6 and p7 of res5: RetinaNet, arXiv 1708.02002, section
            4).

    Raises:
        ValueError: an argument is not among its choices, or the backbone has no such feature.
    """
    shapes = bottom_up.output_shape()
    known = _find_stages(shapes)
    in_features = known if in_features is None else list(in_features)
    problems = check_names("in_features of the FPN", in_features, known)
    if not problems and [_number(name) - _number(in_features[0]) for name in in_features] != list(
        range(len(in_features))
    ):
        problems.append(f"in_features of the FPN are {in_features}; name neighbouring stages, finest first")
    if fuse_type not in ("sum", "avg"):
        problems.append(f"fuse_type is {fuse_type!r}; choose one of sum, avg")
    if top_block not in TOP_BLOCKS:
        problems.append(f"top_block is {top_block!r}; choose one of {', '.join(TOP_BLOCKS)}")
    elif top_block == "p6p7" and not problems and in_features[-1] != known[-1]:
        problems.append(
            f"in_features of the FPN end with {in_features[-1]}, and top_block p6p7 is made of {known[-1]}, the "
            "backbone's last output: end both with the same stage"
        )
    if problems:
        raise ValueError("; ".join(problems))
    if top_block == "p6p7":
        top = LastLevelP6P7(shapes[known[-1]].channels, out_channels, in_feature=known[-1])
    else:
        top = LastLevelMaxPool()
        top.in_feature = f"p{_number(in_features[-1])}"
    has_usual_strides = all(shapes[name].stride == 2 ** _number(name) for name in in_features)
    fpn_class = FeaturePyramid if has_usual_strides else FreeStridesFPN
    return fpn_class(bottom_up, in_features, out_channels, norm, top, fuse_type)
