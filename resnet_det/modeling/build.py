"""From a config to modules: the only modeling file that reads cfg. On import it registers its builders."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN

from resnet_det.config import read_densenet_spec, read_resnet_spec
from resnet_det.modeling.densenet import DenseNet
from resnet_det.modeling.pyramid import make_fpn
from resnet_det.modeling.resnet import ResNet

logger = logging.getLogger(__name__)


def build_resnet(cfg: CfgNode, **options: Any) -> ResNet:
    """The ResNet that MODEL.RESNETS describes.

    Args:
        options: of :func:`resnet_det.config.read_resnet_spec`.

    Raises:
        InputError: a key has a value that no ResNet can have.
    """
    spec, said = read_resnet_spec(cfg, **options), cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    own = cfg.MODEL.get("RESNET_DET")
    if own and own.STAGE_BLOCKS and spec.res2_out_channels != said:
        logger.info(
            "MODEL.RESNETS.RES2_OUT_CHANNELS %d is Detectron2's default and counts as not set: %s blocks get %d",
            said, spec.block, spec.res2_out_channels,
        )  # fmt: skip
    return ResNet.from_spec(spec)


@BACKBONE_REGISTRY.register()
def build_resnet_det_backbone(cfg: CfgNode, input_shape: ShapeSpec, *, like_detectron2: bool = False) -> ResNet:
    """The ResNet that MODEL.RESNETS describes, with ``input_shape.channels`` input channels.

    Args:
        like_detectron2: see :func:`resnet_det.config.read_resnet_spec`.

    Raises:
        InputError: a key has a value that no ResNet can have.
    """
    return build_resnet(cfg, in_channels=input_shape.channels, like_detectron2=like_detectron2)


@BACKBONE_REGISTRY.register()
def build_resnet_det_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec, **kwargs: bool) -> FPN:
    """The ResNet of MODEL.RESNETS under the FPN of MODEL.FPN: p2 .. p5 and a pooled p6, for R-CNNs."""
    return _build_fpn(cfg, build_resnet_det_backbone(cfg, input_shape, **kwargs), top_block="max_pool")


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_det_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec, **kwargs: bool) -> FPN:
    """The ResNet of MODEL.RESNETS under the FPN of MODEL.FPN: p3 .. p5, and p6, p7 computed from res5 (RetinaNet)."""
    return _build_fpn(cfg, build_resnet_det_backbone(cfg, input_shape, **kwargs), top_block="p6p7")


@BACKBONE_REGISTRY.register()
def build_densenet_det_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The DenseNet of MODEL.RESNETS.DEPTH (121, 161, 169, 201) under the FPN of MODEL.FPN, for R-CNNs.

    Raises:
        InputError: a key has a value that no DenseNet can have.
    """
    spec = read_densenet_spec(cfg, in_channels=input_shape.channels)
    return _build_fpn(cfg, DenseNet.from_spec(spec), top_block="max_pool")


def _build_fpn(cfg: CfgNode, bottom_up: ResNet, *, top_block: str) -> FPN:
    fpn = cfg.MODEL.FPN
    return make_fpn(
        bottom_up,
        fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
        top_block=top_block,
    )
