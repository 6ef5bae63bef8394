"""Our keys, what a config says about the ResNet, and what can be wrong with one."""

from resnet_det.config.check import FPN_BACKBONE, PLAIN_BACKBONE, RETINANET_BACKBONE, backbone_outputs, check_cfg
from resnet_det.config.classification import check_classification_cfg, set_classification_defaults_
from resnet_det.config.densenet import DENSENET_FPN_BACKBONE, read_densenet_spec, read_spec
from resnet_det.config.images import read_image_input
from resnet_det.config.keys import add_resnet_det_config
from resnet_det.config.merge import flatten_cfg, merge_cfg
from resnet_det.config.resnet import read_resnet_spec

__all__ = [
    "DENSENET_FPN_BACKBONE",
    "FPN_BACKBONE",
    "PLAIN_BACKBONE",
    "RETINANET_BACKBONE",
    "add_resnet_det_config",
    "backbone_outputs",
    "check_cfg",
    "check_classification_cfg",
    "flatten_cfg",
    "merge_cfg",
    "read_densenet_spec",
    "read_image_input",
    "read_resnet_spec",
    "read_spec",
    "set_classification_defaults_",
]
