"""The five depths by one key: an iteration of training and an evaluation each, by the tool's own functions."""

from __future__ import annotations

import json

import pytest
from models import QUICK

from resnet_det.engine import build_train_parser, train_or_evaluate


@pytest.mark.parametrize("depth", [50, *(pytest.param(depth, marks=pytest.mark.long) for depth in (18, 34, 101, 152))])
def test_depth_by_one_key(depth, small_data, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
    small = [
        "SOLVER.MAX_ITER",
        "1",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "INPUT.MIN_SIZE_TRAIN",
        "(64,)",
        "INPUT.MIN_SIZE_TEST",
        "64",
        *QUICK,
    ]
    common = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", str(depth), "OUTPUT_DIR", str(tmp_path), *small]
    config = ["--config-file", "configs/demo/mask_rcnn_R_18_FPN.yaml"]
    results = train_or_evaluate(build_train_parser().parse_args([*config, *data, *common]))
    assert set(results) == {"bbox", "segm"}

    weights = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    again = train_or_evaluate(build_train_parser().parse_args([*config, *data, "--eval-only", *common, *weights]))
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {*again, "facts"}
    for task in results:
        assert again[task] == pytest.approx(results[task], nan_ok=True), "the saved weights are the evaluated ones"
