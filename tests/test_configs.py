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

ROOT = Path(__file__).resolve().parent.parent / "configs"
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*.yaml"))


def load(path):
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds_and_runs(name):
    cfg = load(ROOT / name)
    assert check_cfg(cfg) == []
    assert "resnet_det" in cfg.MODEL.BACKBONE.NAME
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
        assert name.startswith("demo/") or any(f"_R_{depth}_" in name for depth in (18, 34, 101, 152))
        return
    ours, theirs = load(ROOT / name), load(ZOO / name)
    assert theirs.MODEL.BACKBONE.NAME.replace("resnet", "resnet_det") == ours.MODEL.BACKBONE.NAME
    theirs.MODEL.BACKBONE.NAME = ours.MODEL.BACKBONE.NAME
    assert ours == theirs
