"""What can be wrong with a config, found before time is spent."""

from __future__ import annotations

import re

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from resnet_det.config.densenet import DENSENET_FPN_BACKBONE, read_spec
from resnet_det.config.images import check_image_input
from resnet_det.config.training import (
    check_augmentation_keys,
    check_augmented_tests,
    check_sliced_tests,
    check_training_keys,
)
from resnet_det.errors import InputError

PLAIN_BACKBONE = "build_resnet_det_backbone"
FPN_BACKBONE = "build_resnet_det_fpn_backbone"
RETINANET_BACKBONE = "build_retinanet_resnet_det_fpn_backbone"


def backbone_outputs(cfg: CfgNode) -> list[str] | None:
    """Names of the feature maps that the backbone of ``cfg`` hands on; None if it is not one of ours."""
    if cfg.MODEL.BACKBONE.NAME == PLAIN_BACKBONE:
        return list(cfg.MODEL.RESNETS.OUT_FEATURES)
    levels = [f"p{name.removeprefix('res')}" for name in cfg.MODEL.FPN.IN_FEATURES]
    if cfg.MODEL.BACKBONE.NAME in (FPN_BACKBONE, DENSENET_FPN_BACKBONE):
        return [*levels, f"p{int(levels[-1][1:]) + 1}"] if levels else []
    if cfg.MODEL.BACKBONE.NAME == RETINANET_BACKBONE:
        return [*levels, *(f"p{int(levels[-1][1:]) + more}" for more in (1, 2))] if levels else []
    return None


def check_cfg(cfg: CfgNode) -> list[str]:
    """Everything in ``cfg`` that would fail later on, each with its key and what would be right; not the data."""
    problems = []
    model = cfg.MODEL
    for key, name, registry in (
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
    ):
        if name not in registry:
            choices = ", ".join(sorted(known for known, _ in registry))
            problems.append(f"{key} is {name!r}; choose one of {choices}")
    problems += check_device(model.DEVICE)
    problems += check_input(cfg)
    problems += check_training_keys(cfg)
    problems += check_augmentation_keys(cfg)
    problems += check_augmented_tests(cfg)
    problems += check_sliced_tests(cfg)
    outputs = backbone_outputs(cfg)
    if outputs is None:
        return problems
    try:
        read_spec(cfg)
    except InputError as error:
        problems.append(str(error))
    if model.BACKBONE.NAME != PLAIN_BACKBONE:
        problems += _not_among(
            "MODEL.FPN.IN_FEATURES", model.FPN.IN_FEATURES, model.RESNETS.OUT_FEATURES, "MODEL.RESNETS.OUT_FEATURES"
        )
    for key, names in _features_used(cfg).items():
        problems += _not_among(key, names, outputs, f"the outputs of {model.BACKBONE.NAME}")
    problems += _check_anchors(cfg)
    if model.META_ARCHITECTURE == "GeneralizedRCNN" and model.ROI_HEADS.NAME != "Res5ROIHeads":
        problems += _repeated_strides(cfg)
    return problems


def check_device(device: str) -> list[str]:
    """Where torch may run a model: Detectron2's operators are made for these alone."""
    if re.fullmatch(r"cpu|cuda(:\d+)?", device):
        return []
    return [f"MODEL.DEVICE is {device!r}; choose cpu, cuda, or one GPU such as cuda:0"]


def check_input(cfg: CfgNode) -> list[str]:
    problems = []
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sizes) != 2:
        problems.append(
            f"INPUT.MIN_SIZE_TRAIN {tuple(sizes)}: with INPUT.MIN_SIZE_TRAIN_SAMPLING range two sizes would be right"
        )
    return problems + check_image_input(cfg)


def _check_anchors(cfg: CfgNode) -> list[str]:
    """Anchor sizes and aspect ratios: one list for all feature maps, or one for each."""
    if cfg.MODEL.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        return []
    keys = {"RetinaNet": "MODEL.RETINANET.IN_FEATURES"}
    key = keys.get(cfg.MODEL.META_ARCHITECTURE, "MODEL.RPN.IN_FEATURES")
    names = _features_used(cfg).get(key)
    if names is None:
        return []
    problems = []
    for part in ("SIZES", "ASPECT_RATIOS"):
        lists = cfg.MODEL.ANCHOR_GENERATOR[part]
        if not lists or not isinstance(lists[0], list | tuple):
            continue  # one list of numbers, for all
        if len(lists) not in (1, len(names)):
            problems.append(
                f"MODEL.ANCHOR_GENERATOR.{part} has {len(lists)} lists, and {key} {len(names)} feature maps: one list, "
                "or one for each, would be right"
            )
    return problems


def _repeated_strides(cfg: CfgNode) -> list[str]:
    """ROI heads pick the level by the size of the box, which takes one level per stride."""
    try:
        strides = read_spec(cfg).strides
    except InputError:
        return []
    names = [name for name in cfg.MODEL.ROI_HEADS.IN_FEATURES if f"res{name[1:]}" in strides]
    used = [strides[f"res{name[1:]}"] for name in names]
    if len(set(used)) == len(used):
        return []
    return [
        f"MODEL.ROI_HEADS.IN_FEATURES {names} have strides {used}; leave out levels of dilated stages until each "
        "stride is there once"
    ]


def _features_used(cfg: CfgNode) -> dict[str, list[str]]:
    """The keys by which the heads of this meta-architecture pick feature maps."""
    model = cfg.MODEL
    if model.META_ARCHITECTURE == "RetinaNet":
        return {"MODEL.RETINANET.IN_FEATURES": model.RETINANET.IN_FEATURES}
    used = {}
    if model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork"):
        used["MODEL.RPN.IN_FEATURES"] = model.RPN.IN_FEATURES
    if model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN"):
        used["MODEL.ROI_HEADS.IN_FEATURES"] = model.ROI_HEADS.IN_FEATURES
    if model.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
        used["MODEL.SEM_SEG_HEAD.IN_FEATURES"] = model.SEM_SEG_HEAD.IN_FEATURES
    return used


def _not_among(key: str, names: list[str], known: list[str], what: str) -> list[str]:
    return [f"{key} has {name!r}, which is not among {what}: {', '.join(known)}" for name in names if name not in known]
