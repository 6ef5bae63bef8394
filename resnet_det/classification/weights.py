"""The weights of a trained classifier as a file that detectors start from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from resnet_det.densenet_specs import DenseNetSpec
from resnet_det.specs import ResNetSpec
from resnet_det.weights import TRAINED_WITH, Conventions, describe_net, to_json, write_tensors

logger = logging.getLogger(__name__)

FILE_NAME = "classifier.safetensors"
_PREFIX = "backbone."


def describe_backbone(backbone: nn.Module) -> dict[str, Any]:
    """What is known of a net that is trained (:func:`resnet_det.weights.describe_net`): nothing unless it was made of a
    spec."""
    spec = find_spec(backbone)
    return {} if spec is None else describe_net(spec)


def find_spec(backbone: nn.Module) -> ResNetSpec | DenseNetSpec | None:
    """What a net was made of; None if it was not made of a spec."""
    spec = getattr(backbone, "spec", None)
    return spec if isinstance(spec, ResNetSpec | DenseNetSpec) else None


def describe_training(cfg: CfgNode, backbone: nn.Module) -> dict[str, str]:
    """What files of weights say of how these were trained, where :func:`resnet_det.weights.find_conventions` looks."""
    pixels = tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)
    stride_in_1x1 = getattr(find_spec(backbone), "stride_in_1x1", None)
    return {TRAINED_WITH: to_json(Conventions(cfg.INPUT.FORMAT, *pixels, stride_in_1x1, describe_backbone(backbone)))}


def write_weights(cfg: CfgNode, checkpoint: Path) -> Path:
    """Write the ResNet of a checkpoint, with its head, to OUTPUT_DIR/classifier.safetensors.

    The file says what pixels it takes and how its net computes, as the checkpoint does; a detector that gets it as
    MODEL.WEIGHTS is held to that.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    weights = content["model"].items()
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in weights if name.startswith(_PREFIX)}
    path = Path(cfg.OUTPUT_DIR, FILE_NAME)
    temporary = path.with_name(f"{path.stem}.tmp.safetensors")
    write_tensors(tensors, temporary, extra={TRAINED_WITH: content[TRAINED_WITH]})
    temporary.replace(path)
    logger.info("%s: %d tensors of %s, to start a detector from (MODEL.WEIGHTS)", path, len(tensors), checkpoint.name)
    return path
