"""The benchmarks of models, with few and small images: what is compared, and what is said of it."""

from __future__ import annotations

import argparse
import functools
import math

import pytest
import torch
import torchvision
from detectron2.structures import Boxes, Instances
from models import make_inputs, with_our_backbone, zoo_cfg

from resnet_det.benchmark import forward, train
from resnet_det.benchmark.contenders import exported_contenders, inference_contenders
from resnet_det.benchmark.difference import count_equal_detections
from resnet_det.benchmark.models import (
    backbone_cfg,
    build_backbones,
    build_detectors,
    build_ours_like,
)
from resnet_det.errors import InputError
from resnet_det.modeling.fast_poolers import FastROIAlign
from resnet_det.modeling.fused import ONEDNN_DTYPES

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


def parse(module, *argv):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args(argv)
    args.pairs, args.device = 1, "cpu"
    return args


def test_backbones_of_all_libraries_put_out_the_same():
    models = build_backbones(backbone_cfg(18, []), ["detectron2", "torchvision", "timm"])
    assert list(models) == ["Detectron2", "torchvision", "timm", "resnet_det"]
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outputs = {name: model.eval()(image) for name, model in models.items()}
    for name, features in outputs.items():
        for level, expected in outputs["Detectron2"].items():
            assert (features[level] - expected).abs().max() <= 1e-4 * expected.abs().max(), (name, level)
    assert float(outputs["Detectron2"]["p3"].std()) > 0.01


def test_forward_says_how_fast_how_near_and_what_share_of_the_peak():
    args = parse(forward, "--depths", "18", "--size", "64", "96", "--precision", "fp32", "bf16", "--compile")
    args.compile = False
    (comparison,) = forward.run(args)
    assert "R-18-FPN backbone, 1 image of 64x96" in comparison.title
    names = [result.name for result in comparison.results]
    assert names == ["Detectron2 fp32", "Detectron2 bf16", "resnet_det fp32", "resnet_det bf16"]
    ours, low = comparison.result("resnet_det fp32"), comparison.result("resnet_det bf16")
    assert ours.difference < 1e-4 < low.difference < 0.1
    assert ours.peak_memory_bytes > low.peak_memory_bytes > 0
    assert all(result.matmul_share > 0 for result in comparison.results)
    # Where oneDNN has no bfloat16, a product of matrices in it is slower than a convolution.
    has_peak = [result for result in comparison.results if "fp32" in result.name or torch.bfloat16 in ONEDNN_DTYPES]
    assert all(result.matmul_share < 2 for result in has_peak)


def test_train_compares_losses_and_gradients():
    args = parse(train, "--depths", "18", "--size", "224", "320", "--batch-size", "1", "--checkpoint")
    (comparison,) = train.run(args)
    ours, checkpointed = (comparison.result(f"resnet_det{suffix} fp32") for suffix in ("", " checkpointed"))
    assert ours.difference < 0.1  # of all gradients; single activations around zero may turn
    assert checkpointed.peak_memory_bytes <= ours.peak_memory_bytes
    assert not math.isinf(checkpointed.difference)


def test_detectors_with_random_weights_detect_something():
    cfg = backbone_cfg(
        18,
        ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64],[128],[256],[512]]"],
    )
    cfg.MODEL.RPN.IN_FEATURES, cfg.MODEL.ROI_HEADS.IN_FEATURES = (
        ["p2", "p3", "p4", "p5", "p6"],
        ["p2", "p3", "p4", "p5"],
    )
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.NAME = "StandardROIHeads", "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    models = build_detectors(cfg)
    inputs = [{"image": torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8), "height": 96, "width": 128}]
    with torch.no_grad():
        found = {name: model.eval()(inputs)[0]["instances"] for name, model in models.items()}
    assert len(found["Detectron2"]) > 5
    assert count_equal_detections(found["resnet_det"], found["Detectron2"]) >= len(found["Detectron2"]) - 1


@pytest.mark.parametrize("mask_on", [False, True])
def test_torchvisions_detector_is_the_same_net(monkeypatch, mask_on):
    monkeypatch.setattr("resnet_det.benchmark.models.DECISIVENESS", 3)
    aligned = functools.partial(torchvision.ops.roi_align, aligned=True)  # which torchvision's detectors are not
    monkeypatch.setattr("torchvision.ops.poolers.roi_align", aligned)
    cfg = with_our_backbone(zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.MASK_ON, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = mask_on, not mask_on
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    models = build_detectors(cfg, ["detectron2", "torchvision"])
    assert list(models) == ["Detectron2", "torchvision", "resnet_det"]
    if mask_on:
        bias = torch.tensor([3.0, -3.0]).repeat(cfg.MODEL.ROI_HEADS.NUM_CLASSES // 2)  # full and empty masks by class
        models["Detectron2"].roi_heads.mask_head.predictor.bias.data.copy_(bias)
        models["torchvision"].net.roi_heads.mask_predictor.mask_fcn_logits.bias.data[1:] = bias
    batch = make_inputs(cfg, ((96, 128),))
    with torch.no_grad():
        found = [models[name].eval()(batch)[0]["instances"] for name in ("Detectron2", "torchvision")]
    assert len(found[0]) == 20
    assert count_equal_detections(found[1], found[0]) >= 19
    if mask_on:
        masks = [instances.pred_masks[instances.scores.argsort(descending=True)[:15]] for instances in found]
        assert (masks[0] != masks[1]).sum() < 0.1 * masks[0].sum()
        assert 0 < masks[0].any(dim=(1, 2)).sum() < 15
    theirs, torchvisions = (
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        for model in (models["Detectron2"], models["torchvision"])
    )
    assert torchvisions - theirs == 4 * (1024 + 1) + mask_on * (256 + 1), "box and mask of the background"


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_torchvisions_detector_trains_on_images_with_and_without_objects(mask_format):
    cfg = with_our_backbone(zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.INPUT.MASK_FORMAT = 18, 64, mask_format
    model = build_detectors(cfg, ["torchvision"])["torchvision"].train()
    batch = make_inputs(cfg, ((64, 96), (96, 64)))
    batch[1]["instances"] = batch[1]["instances"][:0]
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert model._target(batch[0]["instances"], torch.device("cpu")) is model._targets[id(batch[0]["instances"])][1]
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8], "cannot build the net of this config"),
        (["MODEL.FPN.OUT_CHANNELS", 128], "cannot build the net of this config"),
        (["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True], "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK is True; it has only"),
        (["MODEL.FPN.FUSE_TYPE", "avg"], "MODEL.FPN.FUSE_TYPE is avg"),
        (["MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64]]], "one list for each level"),
        (["MODEL.RESNETS.NORM", "BN"], "is BN with FREEZE_AT 2"),
    ],
)
def test_what_torchvision_has_not_is_said(opts, message):
    cfg = with_our_backbone(zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_list(opts)
    with pytest.raises(InputError, match=message):
        build_detectors(cfg, ["torchvision"])


def test_variants_of_ours_are_as_fast_but_for_what_they_vary():
    cfg = with_our_backbone(zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    ours = build_detectors(cfg)["resnet_det"]
    variant = build_ours_like(ours, cfg, train.CHECKPOINT_OPTS)
    for model in (ours, variant):
        assert type(model.roi_heads.box_pooler.level_poolers[0]) is FastROIAlign
        assert len(model.backbone._forward_pre_hooks) == 1


@pytest.mark.long
def test_openvino_computes_ours_in_each_precision():
    cfg = with_our_backbone(zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    batch = make_inputs(cfg, ((64, 96),))
    models = build_detectors(cfg, ["openvino"])
    precisions = {"fp32": torch.float32, "int8": torch.int8}
    contenders = inference_contenders(models, precisions, device="cpu", openvino=True, images=batch)
    assert list(contenders) == ["resnet_det fp32", "resnet_det by OpenVINO fp32", "resnet_det by OpenVINO int8"]
    plain, by_openvino, int8 = contenders.values()
    assert (by_openvino.backbone.dtype, int8.backbone.dtype) == (torch.float32, torch.int8)
    with torch.no_grad():
        expected, found, rounded = (model(batch)[0]["instances"] for model in (plain, by_openvino, int8))
    assert count_equal_detections(found, expected) >= 0.95 * len(expected) > 0
    assert len(rounded) > 0


@pytest.mark.long
def test_exported_files_compute_ours_in_each_precision():
    cfg = with_our_backbone(zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    batch = make_inputs(cfg, ((64, 96),))
    plain = build_detectors(cfg, ["exported-onnx"])["resnet_det"].eval()
    plain.roi_heads.box_predictor.cls_score.weight.data /= 20  # with scores of 1 each order is right
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    contenders = exported_contenders(cfg, plain, precisions, ["exported-onnx", "exported-openvino"], batch)
    names = ["onnx fp32", "openvino fp32", "openvino bf16", "onnx int8", "openvino int8"]  # ONNX has no bfloat16 here
    assert list(contenders) == [f"exported-{name}" for name in names]
    with torch.no_grad():
        expected, found, by_openvino, *rounded = (
            model(batch)[0]["instances"] for model in (plain, *contenders.values())
        )
    assert count_equal_detections(found, expected) >= 0.95 * len(expected) > 0
    assert count_equal_detections(by_openvino, expected) >= 0.95 * len(expected)
    assert found.pred_masks.shape == expected.pred_masks.shape
    assert all(len(instances) > 0 for instances in rounded)


def instances(boxes, classes, scores):
    made = Instances((100, 100))
    made.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    made.pred_classes, made.scores = torch.tensor(classes), torch.tensor(scores)
    return made


def test_equal_detections_are_those_with_class_place_and_score():
    expected = instances([[0, 0, 50, 50], [20, 20, 80, 80], [5, 5, 9, 9]], [1, 2, 1], [0.9, 0.8, 0.7])
    swapped = instances([[20, 20, 80, 80.1], [0, 0, 50, 50], [5, 5, 9, 9]], [2, 1, 1], [0.8004, 0.9, 0.7])
    assert count_equal_detections(swapped, expected) == 3
    other = instances([[20, 20, 80, 70], [0, 0, 50, 50], [5, 5, 9, 9]], [2, 3, 1], [0.8, 0.9, 0.6])
    assert count_equal_detections(other, expected) == 0
    assert count_equal_detections(instances([], [], []), expected) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--against", "mmdet"], "choose from detectron2, torchvision, timm"),
        (["--depths", "200", "--against", "torchvision"], "Detectron2's ResNet cannot be built"),
        (["--opts", "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"], "only our backbones can be compared"),
        (["--config-file", DEMO, "--against", "timm"], "choose from detectron2, torchvision, openvino, exported-onnx"),
        (["--config-file", DEMO, "--against", "torchvision"], "MODEL.FPN.NORM is GN; it has only"),
        (["--precision", "int8"], "int8 needs --config-file, --against openvino"),
        (["--config-file", DEMO, "--against", "openvino", "--precision", "int8"], "and another precision beside it"),
        (["--config-file", DEMO, "--against", "exported-onnx", "--precision", "fp16"], "exported-onnx: it has no fp16"),
        (["--num-images", "0"], "--num-images 0: 1 or more"),
        (["--config-file", DEMO, "--against", "openvino", "--precision", "fp16"], "it has no fp16"),
    ],
)
def test_what_cannot_be_compared_is_said(argv, message):
    with pytest.raises(InputError, match=message):
        list(forward.run(parse(forward, "--size", "64", "64", *argv)))
