"""ResNet backbones and pyramids. Importing this room registers the builders with Detectron2."""

from resnet_det.modeling.blocks import BasicBlock, BottleneckBlock
from resnet_det.modeling.build import (
    build_densenet_det_fpn_backbone,
    build_resnet,
    build_resnet_det_backbone,
    build_resnet_det_fpn_backbone,
    build_retinanet_resnet_det_fpn_backbone,
)
from resnet_det.modeling.densenet import DenseNet, make_densenet
from resnet_det.modeling.fast_poolers import speed_up_on_cpus_, use_fast_roi_align
from resnet_det.modeling.inference import prepare_for_inference
from resnet_det.modeling.pyramid import make_fpn
from resnet_det.modeling.replacement import replace_detectron2_resnet
from resnet_det.modeling.resnet import ResNet, make_resnet
from resnet_det.modeling.stems import BasicStem, DeepStem

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeepStem",
    "DenseNet",
    "ResNet",
    "build_densenet_det_fpn_backbone",
    "build_resnet",
    "build_resnet_det_backbone",
    "build_resnet_det_fpn_backbone",
    "build_retinanet_resnet_det_fpn_backbone",
    "make_densenet",
    "make_fpn",
    "make_resnet",
    "prepare_for_inference",
    "replace_detectron2_resnet",
    "speed_up_on_cpus_",
    "use_fast_roi_align",
]
