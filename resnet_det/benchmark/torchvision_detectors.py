"""torchvision's Faster and Mask R-CNN as contenders: the net of a config of Detectron2's, with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from resnet_det.errors import InputError
from resnet_det.weights.names import from_detectron2_names

NORMS = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d}
LEVELS = ["p2", "p3", "p4", "p5"]
# What torchvision builds no other way.
FIXED = {
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "KEYPOINT_ON": False,
    "PROPOSAL_GENERATOR.NAME": "RPN",
    "RESNETS.DEFORM_ON_PER_STAGE": [False] * 4,
    "RESNETS.RES5_DILATION": 1,
    "FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "FPN.NORM": "",
    "FPN.FUSE_TYPE": "sum",
    "ANCHOR_GENERATOR.OFFSET": 0.0,
    "RPN.IN_FEATURES": [*LEVELS, "p6"],
    "RPN.CONV_DIMS": [-1],
    "RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "ROI_HEADS.NAME": "StandardROIHeads",
    "ROI_HEADS.IN_FEATURES": LEVELS,
    "ROI_BOX_HEAD.NUM_FC": 2,
    "ROI_BOX_HEAD.NUM_CONV": 0,
    "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
}
FIXED_WITH_MASKS = {
    "ROI_MASK_HEAD.NUM_CONV": 4,
    "ROI_MASK_HEAD.NORM": "",
    "ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
}
# Detectron2's prefixes and torchvision's; the two number levels and layers from different starts.
PARTS = {
    "proposal_generator.rpn_head.conv.": "rpn.head.conv.0.0.",
    "proposal_generator.rpn_head.objectness_logits.": "rpn.head.cls_logits.",
    "proposal_generator.rpn_head.anchor_deltas.": "rpn.head.bbox_pred.",
    "roi_heads.box_head.fc1.": "roi_heads.box_head.fc6.",
    "roi_heads.box_head.fc2.": "roi_heads.box_head.fc7.",
    "roi_heads.mask_head.deconv.": "roi_heads.mask_predictor.conv5_mask.",
    "roi_heads.mask_head.predictor.": "roi_heads.mask_predictor.mask_fcn_logits.",
    **{f"backbone.fpn_lateral{2 + level}.": f"backbone.fpn.inner_blocks.{level}.0." for level in range(4)},
    **{f"backbone.fpn_output{2 + level}.": f"backbone.fpn.layer_blocks.{level}.0." for level in range(4)},
    **{f"roi_heads.mask_head.mask_fcn{1 + layer}.": f"roi_heads.mask_head.{layer}.0." for layer in range(4)},
}


class TorchvisionDetector(nn.Module):
    """torchvision's detector, called as Detectron2's are.

    The weights are those of ``model``. What differs is torchvision's own: boxes are pooled half a pixel away.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """
        Raises:
            InputError: torchvision has no such detector.
        """
        super().__init__()
        _check(cfg.MODEL)
        try:
            self.net = _build(cfg, model.proposal_generator.anchor_generator)
            self.net.load_state_dict(_rename(model.state_dict()))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--against torchvision: it cannot build the net of this config ({reason})") from error
        self.net.transform.resize = lambda image, target=None: (image, target)  # they come as Detectron2's do
        self._targets: dict[int, tuple[Instances, dict[str, torch.Tensor]]] = {}

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        device = next(self.parameters()).device
        images = [entry["image"].to(device).float() for entry in batch]
        if self.training:
            return self.net(images, [self._target(entry["instances"], device) for entry in batch])
        images, _ = self.net.transform(images)
        features = self.net.backbone(images.tensors)
        proposals, _ = self.net.rpn(images, features)
        detections, _ = self.net.roi_heads(features, proposals, images.image_sizes)
        sizes = [(entry.get("height", height), entry.get("width", width))
                 for entry, (height, width) in zip(batch, images.image_sizes, strict=True)]  # fmt: skip
        found = self.net.transform.postprocess(detections, images.image_sizes, sizes)
        return [{"instances": _make_instances(one, size)} for one, size in zip(found, sizes, strict=True)]

    def _target(self, instances: Instances, device: torch.device) -> dict[str, torch.Tensor]:
        """What is to be found, made once: torchvision's users have their data sets draw polygons."""
        if id(instances) not in self._targets:
            self._targets[id(instances)] = instances, _make_target(instances, device)
        return self._targets[id(instances)][1]


class _Anchors(AnchorGenerator):
    """With Detectron2's anchors, as torchvision rounds its own."""

    def __init__(self, sizes: Any, aspect_ratios: Any, exact: list[torch.Tensor]) -> None:
        super().__init__(sizes, aspect_ratios)
        self.exact = exact

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        self.cell_anchors = [anchors.to(device, dtype) for anchors in self.exact]


def _check(model: CfgNode) -> None:
    for key, expected in {**FIXED, **(FIXED_WITH_MASKS if model.MASK_ON else {})}.items():
        value = model
        for part in key.split("."):
            value = value[part]
        if _listed(value) != _listed(expected):
            raise InputError(f"--against torchvision: MODEL.{key} is {value}; it has only {expected}")
    frozen = model.BACKBONE.FREEZE_AT
    if model.RESNETS.NORM not in NORMS or (model.RESNETS.NORM == "BN" and frozen > 0):
        raise InputError(
            f"--against torchvision: MODEL.RESNETS.NORM is {model.RESNETS.NORM} with FREEZE_AT {frozen}; it has only "
            "FrozenBN, or BN with FREEZE_AT 0"
        )
    if len(model.ANCHOR_GENERATOR.SIZES) != len(model.RPN.IN_FEATURES):
        raise InputError("--against torchvision: MODEL.ANCHOR_GENERATOR.SIZES must have one list for each level")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _build(cfg: CfgNode, anchors: nn.Module) -> nn.Module:
    model, rpn, roi, box = cfg.MODEL, cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{model.RESNETS.DEPTH}",  # Detectron2 has no other depths
        weights=None,
        norm_layer=NORMS[model.RESNETS.NORM],
        trainable_layers=min(max(5 - model.BACKBONE.FREEZE_AT, 0), 5),
    )
    if model.RESNETS.STRIDE_IN_1X1 and model.RESNETS.DEPTH >= 50:
        for layer in (backbone.body.layer2, backbone.body.layer3, backbone.body.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, (1, 1)
    levels, channels = ["0", "1", "2", "3"], backbone.out_channels
    options: dict[str, Any] = {
        "image_mean": model.PIXEL_MEAN,
        "image_std": model.PIXEL_STD,
        "rpn_anchor_generator": _Anchors(
            tuple(map(tuple, model.ANCHOR_GENERATOR.SIZES)),
            tuple(map(tuple, model.ANCHOR_GENERATOR.ASPECT_RATIOS)) * len(model.ANCHOR_GENERATOR.SIZES),
            list(anchors.cell_anchors),
        ),
        "rpn_pre_nms_top_n_train": rpn.PRE_NMS_TOPK_TRAIN,
        "rpn_pre_nms_top_n_test": rpn.PRE_NMS_TOPK_TEST,
        "rpn_post_nms_top_n_train": rpn.POST_NMS_TOPK_TRAIN,
        "rpn_post_nms_top_n_test": rpn.POST_NMS_TOPK_TEST,
        "rpn_nms_thresh": rpn.NMS_THRESH,
        "rpn_bg_iou_thresh": rpn.IOU_THRESHOLDS[0],
        "rpn_fg_iou_thresh": rpn.IOU_THRESHOLDS[-1],
        "rpn_batch_size_per_image": rpn.BATCH_SIZE_PER_IMAGE,
        "rpn_positive_fraction": rpn.POSITIVE_FRACTION,
        "box_roi_pool": MultiScaleRoIAlign(levels, box.POOLER_RESOLUTION, box.POOLER_SAMPLING_RATIO),
        "box_head": TwoMLPHead(channels * box.POOLER_RESOLUTION**2, box.FC_DIM),
        "box_predictor": FastRCNNPredictor(box.FC_DIM, roi.NUM_CLASSES + 1),
        "box_score_thresh": roi.SCORE_THRESH_TEST,
        "box_nms_thresh": roi.NMS_THRESH_TEST,
        "box_detections_per_img": cfg.TEST.DETECTIONS_PER_IMAGE,
        "bbox_reg_weights": box.BBOX_REG_WEIGHTS,
        "box_bg_iou_thresh": roi.IOU_THRESHOLDS[0],
        "box_fg_iou_thresh": roi.IOU_THRESHOLDS[-1],
        "box_batch_size_per_image": roi.BATCH_SIZE_PER_IMAGE,
        "box_positive_fraction": roi.POSITIVE_FRACTION,
    }
    if not model.MASK_ON:
        return FasterRCNN(backbone, **options)
    mask = model.ROI_MASK_HEAD
    options["mask_roi_pool"] = MultiScaleRoIAlign(levels, mask.POOLER_RESOLUTION, mask.POOLER_SAMPLING_RATIO)
    options["mask_head"] = MaskRCNNHeads(channels, (mask.CONV_DIM,) * 4, 1)
    options["mask_predictor"] = MaskRCNNPredictor(mask.CONV_DIM, mask.CONV_DIM, roi.NUM_CLASSES + 1)
    return MaskRCNN(backbone, **options)


def _rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By torchvision's names, where the background is the first class; in Detectron2 it is the last, or none."""
    prefix = "backbone.bottom_up."
    trunk = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    names = from_detectron2_names(list(trunk), "torchvision")
    renamed = {f"backbone.body.{names[name]}": tensor for name, tensor in trunk.items()}
    for name, tensor in state.items():
        if name.startswith((prefix, "pixel_", "proposal_generator.anchor_generator.")):
            continue
        part = next((part for part in PARTS if name.startswith(part)), None)
        new = name if part is None else PARTS[part] + name.removeprefix(part)
        if "cls_score" in name:
            tensor = tensor.roll(1, 0)
        elif ".box_predictor.bbox_pred" in name or ".mask_head.predictor." in name:
            tensor = torch.cat([tensor.new_zeros(4 if "bbox_pred" in name else 1, *tensor.shape[1:]), tensor])
        renamed[new] = tensor
    return renamed


def _make_target(instances: Instances, device: torch.device) -> dict[str, torch.Tensor]:
    target = {"boxes": instances.gt_boxes.tensor.to(device), "labels": instances.gt_classes.to(device) + 1}
    if instances.has("gt_masks") and len(instances):
        masks = instances.gt_masks
        bits = masks if isinstance(masks, BitMasks) else BitMasks.from_polygon_masks(masks, *instances.image_size)
        target["masks"] = bits.tensor.to(device, torch.uint8)
    else:
        target["masks"] = torch.zeros(len(instances), *instances.image_size, dtype=torch.uint8, device=device)
    return target


def _make_instances(found: dict[str, torch.Tensor], size: tuple[int, int]) -> Instances:
    instances = Instances(size, pred_boxes=Boxes(found["boxes"]), scores=found["scores"])
    instances.pred_classes = found["labels"] - 1
    if "masks" in found:
        instances.pred_masks = found["masks"][:, 0] > 0.5
    return instances
