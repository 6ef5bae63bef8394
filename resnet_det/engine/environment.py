"""What this environment has and lacks, and whether a detector runs in it."""

from __future__ import annotations

import importlib.util
import platform

import detectron2
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from resnet_det.config import FPN_BACKBONE, add_resnet_det_config


def describe_environment() -> list[str]:
    """One line for each thing that matters, with what its absence costs."""
    compiled = importlib.util.find_spec("detectron2._C") is not None
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}",
        f"Detectron2 {detectron2.__version__} "
        + (
            "with its compiled operators"
            if compiled
            else "without compiled operators: no rotated boxes, COCO evaluation by pycocotools"
        ),
    ]
    if torch.cuda.is_available():
        lines += [f"GPU {index}: {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    else:
        lines.append("no CUDA device: everything runs on the CPU")
    try:
        import cv2

        has_windows = "headless" not in _distribution_of("cv2")
        lines.append(f"OpenCV {cv2.__version__}" + ("" if has_windows else " (headless: no windows)"))
    except ImportError as error:
        lines.append(f"OpenCV does not work ({error}): install opencv-python, or opencv-python-headless on a server")
    if importlib.util.find_spec("shapely") is None:
        lines.append("shapely is not installed: no INPUT.CROP with polygon masks")
    return lines


def _distribution_of(module: str) -> str:
    from importlib.metadata import packages_distributions

    return " ".join(packages_distributions().get(module, []))


def self_test() -> None:
    """Build a small Mask R-CNN on our backbone and run it once.

    Raises:
        RuntimeError: it gives no predictions in Detectron2's format.
    """
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.MODEL.WEIGHTS, cfg.MODEL.MASK_ON = "", True
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.MODEL.BACKBONE.NAME = FPN_BACKBONE
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    with torch.no_grad():
        outputs = build_model(cfg).eval()([{"image": torch.zeros(3, 96, 128)}])
    if not outputs[0]["instances"].has("pred_masks"):
        raise RuntimeError("Mask R-CNN gave no masks")
