from __future__ import annotations

import pytest
from detectron2.modeling import build_model
from models import CONFIGS, ZOO, check_trains_and_detects, find_distinct_configs, list_configs, make_inputs, read_config

from resnet_det.config import check_cfg
from resnet_det.engine.initial_weights import check_from_scratch
from resnet_det.weights import find_conventions

OWN = ("_R_18_", "_R_34_", "_R_101_", "_R_152_", "_X_50_32x4d_", "_WRN_50_2_", "_R_50_D_", "_DenseNet_", "_LSJ")
NAMES = [str(path.relative_to(CONFIGS)) for path in list_configs()]


def mark_deep(name):
    return pytest.param(name, marks=[pytest.mark.long] * (read_config(CONFIGS / name).MODEL.RESNETS.DEPTH > 50))


@pytest.mark.parametrize("name", NAMES)
def test_config_is_right_and_has_our_backbone(name):
    cfg = read_config(CONFIGS / name)
    assert check_cfg(cfg) == []
    assert "_det_" in cfg.MODEL.BACKBONE.NAME


@pytest.mark.parametrize("name", [mark_deep(name) for name in find_distinct_configs()])
def test_config_builds_and_runs(name):
    cfg = read_config(CONFIGS / name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 16
    model = build_model(cfg)
    inputs = make_inputs(cfg, ((64, 96), (80, 64)))
    check_trains_and_detects(model, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_config_differs_from_detectron2s_in_the_backbone_alone(name):
    if not (ZOO / name).is_file():
        assert name.startswith(("demo/", "edge/")) or any(net in name for net in OWN), (
            "a config that Detectron2 has not"
        )
        return
    ours, theirs = read_config(CONFIGS / name), read_config(ZOO / name)
    assert theirs.MODEL.BACKBONE.NAME.replace("resnet", "resnet_det") == ours.MODEL.BACKBONE.NAME
    theirs.MODEL.BACKBONE.NAME = ours.MODEL.BACKBONE.NAME
    assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_config_has_the_pixels_and_strides_of_its_weights(name):
    cfg = read_config(CONFIGS / name)
    if not cfg.MODEL.WEIGHTS:
        assert check_from_scratch(cfg) == []
        return
    conventions = find_conventions(cfg.MODEL.WEIGHTS)  # of the catalogue: nothing is downloaded
    assert conventions is not None
    assert conventions.channel_order == cfg.INPUT.FORMAT
    assert pytest.approx(conventions.pixel_mean) == cfg.MODEL.PIXEL_MEAN
    assert pytest.approx(conventions.pixel_std) == cfg.MODEL.PIXEL_STD
    assert conventions.stride_in_1x1 in (None, cfg.MODEL.RESNETS.STRIDE_IN_1X1)
