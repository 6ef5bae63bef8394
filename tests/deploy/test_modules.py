"""The modules that are exported detect what Detectron2's models do, and what cannot be exported is told."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from detectron2.modeling import build_model
from models import make_inputs, randomise_norms_, with_our_backbone, zoo_cfg

from resnet_det import prepare_for_inference
from resnet_det.deploy.modules import PLAIN, make_exportable

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
KINDS = [
    (MASK_RCNN, 18),
    ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", 18),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", 14),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml", 14),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", 18),
    ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", 18),
    ("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml", 14),
]


def make_model(config, depth, score_threshold=0.05):
    cfg = with_our_backbone(zoo_cfg(config, MODEL__RESNETS__DEPTH=depth))
    width = 64 if depth == 18 else 32
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64 if depth == 18 else 128, width
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score_threshold
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 5
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20, 100
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM, cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = 16, (32,)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    randomise_norms_(model)
    with torch.no_grad():  # scores that are neither all 1, which is a tie, nor all 0
        for name, parameter in model.named_parameters():
            if "cls_score" in name:
                parameter.mul_(2 if "C4" in config else 0.1)
    return cfg, model


@torch.no_grad()
def test_deformable_convolutions_are_torchvisions():
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    layer = DeformConv(6, 8, 3, **options)
    layer.norm, layer.activation = torch.nn.BatchNorm2d(8).eval(), torch.relu
    x, offset = torch.randn(2, 6, 11, 9), 2 * torch.randn(2, 18, 6, 5)
    expected = layer(x, offset)
    layer.__class__ = PLAIN[DeformConv]
    torch.testing.assert_close(layer(x, offset), expected, atol=1e-5, rtol=1e-5)
    second = ModulatedDeformConv(6, 8, 3, **options)  # which Detectron2 has on GPUs alone
    second.__class__ = PLAIN[ModulatedDeformConv]
    second.weight, second.norm, second.activation = layer.weight, layer.norm, layer.activation
    torch.testing.assert_close(second(x, offset, torch.ones(2, 9, 6, 5)), expected, atol=1e-5, rtol=1e-5)
    half = torch.zeros(2, 9, 6, 5)
    half[:, 4] = 1
    layer.weight = torch.nn.Parameter(torch.where(torch.arange(9).view(3, 3) == 4, layer.weight, 0))
    torch.testing.assert_close(second(x, offset, half), layer(x, offset), atol=1e-5, rtol=1e-5)


def make_batch(cfg, sizes):
    """Images of ``sizes`` as Detectron2's model takes them, and as one tensor with 77 where there is no image."""
    inputs = [{"image": entry["image"].float()} for entry in make_inputs(cfg, sizes)]
    sizes = torch.tensor(sizes)
    images = torch.full((len(inputs), inputs[0]["image"].shape[0], *sizes.max(0).values.tolist()), 77.0)
    for image, entry, (height, width) in zip(images, inputs, sizes.tolist(), strict=True):
        image[:, :height, :width] = entry["image"]
    return inputs, images, sizes


@pytest.mark.parametrize(("config", "depth"), KINDS)
@pytest.mark.parametrize("sizes", [((96, 128), (110, 90), (64, 64)), ((70, 101),)], ids=["three", "one"])
@torch.no_grad()
def test_the_same_is_detected(config, depth, sizes):
    cfg, model = make_model(config, depth)
    inputs, images, sizes = make_batch(cfg, sizes)
    expected = [output["instances"] for output in model(inputs)]
    module = make_exportable(model)
    found = dict(zip(module.output_names, module(images, sizes), strict=True))
    assert sum(map(len, expected)) > 0
    for number, instances in enumerate(expected):
        count = found["count"][number]
        boxes = found["boxes"][number, :count]
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        assert kept.sum() == len(instances)
        boxes, scores = boxes[kept], found["scores"][number, :count][kept]
        assert (scores.diff() <= 0).all()
        # Of scores that differ by rounding, either may come first.
        same_class = found["classes"][number, :count][kept] == instances.pred_classes[:, None]
        distances = torch.cdist(instances.pred_boxes.tensor, boxes, p=float("inf"))
        order = distances.where(same_class, torch.inf).argmin(1)
        assert len(set(order.tolist())) == len(instances)
        torch.testing.assert_close(scores[order], instances.scores, atol=1e-6, rtol=0)
        torch.testing.assert_close(boxes[order], instances.pred_boxes.tensor, atol=1e-3, rtol=0)
        assert not found["boxes"][number, count:].any()
        assert not found["scores"][number, count:].any()


@torch.no_grad()
def test_masks_are_those_of_the_detections():
    cfg, model = make_model(MASK_RCNN, 18)
    inputs, images, sizes = make_batch(cfg, ((96, 128), (64, 64)))
    expected = torch.cat([found.pred_masks for found in model.inference(inputs, do_postprocess=False)])
    module = make_exportable(model)
    found = dict(zip(module.output_names, module(images, sizes), strict=True))
    torch.testing.assert_close(found["masks"], expected[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_nothing_may_be_found():
    cfg, model = make_model(MASK_RCNN, 18, score_threshold=0.999999)
    _, images, sizes = make_batch(cfg, ((96, 128), (64, 64)))
    *_, count, masks = make_exportable(model)(images, sizes)
    assert count.tolist() == [0, 0]
    assert masks.shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("config", "overrides", "expected"),
    [
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", {}, "PanopticFPN has no form that exporters take"),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", {}, "ProposalNetwork has no form that exporters take"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", {}, "its proposal generator is NoneType; RPN can be exported"),
        (
            MASK_RCNN,
            {"MODEL__ROI_BOX_HEAD__POOLER_TYPE": "ROIPool"},
            "its pooler is RoIPool; ROIAlign and FastROIAlign can be exported",
        ),
    ],
)
def test_what_cannot_be_exported_is_told(config, overrides, expected):
    cfg = with_our_backbone(zoo_cfg(config, **overrides))
    with torch.device("meta"):
        cfg.MODEL.DEVICE = "meta"
        model = build_model(cfg)
    with pytest.raises(ValueError, match=expected):
        make_exportable(model)


@torch.no_grad()
def test_values_that_are_not_finite_leave_the_rest_alone():
    cfg, model = make_model(MASK_RCNN, 18)
    _, images, sizes = make_batch(cfg, ((96, 128), (64, 64)))
    module = make_exportable(model)
    *expected, _ = module(images, sizes)
    images[1, :, 10, 10] = float("nan")
    *found, _ = module(images, sizes)
    count = expected[3][0]
    assert found[3][0] == count > 0
    torch.testing.assert_close(found[0][0], expected[0][0], atol=1e-3, rtol=0)
    assert all(part.isfinite().all() for part in found)


def test_prepared_models_are_not_exported():
    _, model = make_model(MASK_RCNN, 18)
    with pytest.raises(ValueError, match="prepared for inference"):
        make_exportable(prepare_for_inference(model))
