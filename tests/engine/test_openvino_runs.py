"""--eval-only with a backbone that OpenVINO computes."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.backbone import FPN

from resnet_det.engine import build_train_parser, setup_cfg, train_or_evaluate
from resnet_det.engine.precision import load_calibration, prepare_as_configured
from resnet_det.errors import InputError
from resnet_det.modeling.openvino_backbone import OpenVinoBackbone


@pytest.fixture
def weights(make_args, tmp_path):
    """KEY VALUE for MODEL.WEIGHTS of the demo's detector, random but for scores that differ."""
    cfg = setup_cfg(build_train_parser().parse_args(["--eval-only", *make_args()]))
    torch.manual_seed(3)
    model = build_model(cfg)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    return ["MODEL.WEIGHTS", tmp_path / "weights.pth"]


def evaluate(make_args, *opts):
    return train_or_evaluate(build_train_parser().parse_args(["--eval-only", *make_args(*opts)]))


def test_int8_is_calibrated_on_training_images_and_its_cost_is_said(make_args, weights, tmp_path):
    opts = [*weights, "RESNET_DET.TEST.PREPARE", "openvino-int8", "RESNET_DET.TEST.CALIBRATION_IMAGES", 3]
    results = evaluate(make_args, *opts, "RESNET_DET.TEST.REPORT", False)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "int8: the ranges of features are those of 3 images of small_train" in log
    before, after, change = re.search(
        r"bbox/AP: ([\d.]+) as it is, ([\d.]+) prepared \(openvino-int8\): ([+-][\d.]+)", log
    ).groups()
    assert float(after) == pytest.approx(results["bbox"]["AP"], abs=0.006)
    assert float(change) == pytest.approx(float(after) - float(before), abs=0.011)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["bbox"]["AP"] == results["bbox"]["AP"]


def test_float32_finds_the_same(make_args, weights):
    plain = evaluate(make_args, *weights, "RESNET_DET.TEST.REPORT", False)
    found = evaluate(
        make_args, *weights, "RESNET_DET.TEST.PREPARE", "openvino-float32", "RESNET_DET.TEST.REPORT", False
    )
    for task in ("bbox", "segm"):
        assert found[task]["AP"] == pytest.approx(plain[task]["AP"], abs=0.02)


def test_what_is_missing_is_said(make_args, weights, monkeypatch):
    with pytest.raises(InputError, match=r"openvino-int8 takes images of DATASETS.TRAIN, which is empty"):
        load_calibration(get_cfg())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        InputError, match="PREPARE openvino-float32: OpenVINO is needed for this backend; it is not part"
    ):
        evaluate(make_args, *weights, "RESNET_DET.TEST.PREPARE", "openvino-float32")


@pytest.mark.parametrize(
    ("name", "backbone", "dtype"),
    [
        ("bfloat16", FPN, torch.bfloat16),
        ("float32", FPN, torch.float32),
        ("openvino-bfloat16", OpenVinoBackbone, torch.bfloat16),
        pytest.param("openvino-int8", OpenVinoBackbone, torch.int8, marks=pytest.mark.long),
    ],
)
def test_the_model_is_what_the_key_says(make_args, weights, name, backbone, dtype):
    cfg = setup_cfg(build_train_parser().parse_args(["--eval-only", *make_args(*weights)]))
    cfg.merge_from_list(["RESNET_DET.TEST.PREPARE", name, "RESNET_DET.TEST.CALIBRATION_IMAGES", 1])
    prepared = prepare_as_configured(cfg, build_model(cfg).eval()).backbone
    assert isinstance(prepared, backbone)
    assert (prepared.dtype if backbone is OpenVinoBackbone else prepared.fpn_output2.weight.dtype) == dtype
