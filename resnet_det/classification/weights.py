"""The weights of a trained classifier as a file that detectors start from."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode

from resnet_det.weights import TRAINED_WITH, Conventions, to_json, write_tensors

logger = logging.getLogger(__name__)

FILE_NAME = "classifier.safetensors"
_PREFIX = "backbone."


def describe_training(cfg: CfgNode) -> dict[str, str]:
    """What files of weights say of how these were trained, where :func:`resnet_det.weights.find_conventions` looks."""
    conventions = Conventions(
        cfg.INPUT.FORMAT,
        tuple(cfg.MODEL.PIXEL_MEAN),
        tuple(cfg.MODEL.PIXEL_STD),
        stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
    )
    return {TRAINED_WITH: to_json(conventions)}


def write_weights(cfg: CfgNode, checkpoint: Path) -> Path:
    """Write the ResNet of a checkpoint, with its head, to OUTPUT_DIR/classifier.safetensors.

    The file says what pixels it takes; a detector that gets it as MODEL.WEIGHTS is held to that.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["model"]
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in content.items() if name.startswith(_PREFIX)}
    path = Path(cfg.OUTPUT_DIR, FILE_NAME)
    temporary = path.with_name(f"{path.stem}.tmp.safetensors")
    write_tensors(tensors, temporary, extra=describe_training(cfg))
    temporary.replace(path)
    logger.info("%s: %d tensors of %s, to start a detector from (MODEL.WEIGHTS)", path, len(tensors), checkpoint.name)
    return path
