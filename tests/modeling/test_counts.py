"""Parameter counts of whole models, pinned to those of Detectron2's configs (80 classes, FrozenBN)."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from models import with_our_backbone, zoo_cfg

FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
COUNTS = {
    "faster_R_18": (FASTER, {"MODEL__RESNETS__DEPTH": 18}, 28_674_656),
    "faster_R_34": (FASTER, {"MODEL__RESNETS__DEPTH": 34}, 38_775_392),
    "faster_R_50": (FASTER, {}, 41_699_936),
    "faster_R_101": (FASTER, {"MODEL__RESNETS__DEPTH": 101}, 60_639_840),
    "faster_R_152": (FASTER, {"MODEL__RESNETS__DEPTH": 152}, 76_237_408),
    "faster_X_101": ("COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml", {}, 104_784_480),
    "faster_R_50_C4": ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", {}, 33_791_644),
    "faster_R_50_DC5": ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", {}, 165_581_468),
    "retinanet_R_50": ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {}, 37_915_572),
    "retinanet_R_101": ("COCO-Detection/retinanet_R_101_FPN_3x.yaml", {}, 56_855_476),
    "mask_R_50": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", {}, 44_343_216),
    "mask_R_101": ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml", {}, 63_283_120),
    "mask_X_101": ("COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml", {}, 107_427_760),
    "mask_R_50_dconv": ("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml", {}, 44_924_058),
    "cascade_R_50": ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", {}, 71_984_926),
    "keypoint_R_50": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", {}, 59_133_158),
    "panoptic_R_50": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", {}, 45_973_990),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count(name):
    path, overrides, expected = COUNTS[name]
    cfg = with_our_backbone(zoo_cfg(path, **overrides))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_freezing_at_2_takes_222400_parameters_out_of_training():
    cfg = with_our_backbone(zoo_cfg(FASTER))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_477_536


def test_state_of_r_50_fpn_backbone_has_281_tensors():
    cfg = with_our_backbone(zoo_cfg(FASTER))
    assert len(build_model(cfg).backbone.state_dict()) == 281
