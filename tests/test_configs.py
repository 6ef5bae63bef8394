"""Every yaml in configs/ builds, and runs a small forward and backward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from models import ZOO, make_inputs

from resnet_det import add_resnet_det_config
from resnet_det.config import check_cfg
from resnet_det.engine.initial_weights import check_from_scratch
from resnet_det.weights import find_conventions

ROOT = Path(__file__).resolve().parent.parent / "configs"
OWN = ("_R_18_", "_R_34_", "_R_101_", "_R_152_", "_X_50_32x4d_", "_WRN_50_2_", "_R_50_D_", "_LSJ")
CLASSIFIERS = ROOT / "ImageNet-Classification"  # which tests/classification looks at
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("*/**/*.yaml") if CLASSIFIERS not in p.parents)


def load(path):
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


def find_models():
    """One config for each distinct model, whatever the schedule, data, weights and pixels. Deep nets take long."""
    models = {}
    for name in CONFIGS:
        model = load(ROOT / name).MODEL
        model.WEIGHTS, model.PIXEL_MEAN, model.PIXEL_STD = "", [], []
        models.setdefault(model.dump(), pytest.param(name, marks=[pytest.mark.long] * (model.RESNETS.DEPTH > 50)))
    return models.values()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_right_and_has_our_backbone(name):
    cfg = load(ROOT / name)
    assert check_cfg(cfg) == []
    assert "resnet_det" in cfg.MODEL.BACKBONE.NAME


@pytest.mark.parametrize("name", find_models())
def test_config_builds_and_runs(name):
    cfg = load(ROOT / name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 16
    model = build_model(cfg)
    inputs = make_inputs(cfg, ((64, 96), (80, 64)))
    with EventStorage():
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "every trainable parameter gets a gradient"
    with torch.no_grad():
        assert "instances" in model.eval()(inputs[:1])[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_differs_from_detectron2s_in_the_backbone_alone(name):
    if not (ZOO / name).is_file():
        assert name.startswith("demo/") or any(net in name for net in OWN), "a config that Detectron2 has not"
        return
    ours, theirs = load(ROOT / name), load(ZOO / name)
    assert theirs.MODEL.BACKBONE.NAME.replace("resnet", "resnet_det") == ours.MODEL.BACKBONE.NAME
    theirs.MODEL.BACKBONE.NAME = ours.MODEL.BACKBONE.NAME
    assert ours == theirs


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_the_pixels_and_strides_of_its_weights(name):
    cfg = load(ROOT / name)
    if not cfg.MODEL.WEIGHTS:
        assert check_from_scratch(cfg) == []
        return
    conventions = find_conventions(cfg.MODEL.WEIGHTS)  # of the catalogue: nothing is downloaded
    assert conventions is not None
    assert conventions.channel_order == cfg.INPUT.FORMAT
    assert pytest.approx(conventions.pixel_mean) == cfg.MODEL.PIXEL_MEAN
    assert pytest.approx(conventions.pixel_std) == cfg.MODEL.PIXEL_STD
    assert conventions.stride_in_1x1 == cfg.MODEL.RESNETS.STRIDE_IN_1X1
