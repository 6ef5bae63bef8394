"""The plain loop trains, and what it writes is evaluated."""

from __future__ import annotations

import json

import pytest


@pytest.mark.usefixtures("small_data")
def test_the_plain_loop_trains_and_evaluates(run_tool_here, small_data, tmp_path):
    sets = [[f"plain_{split}", *files] for split, files in small_data.items()]
    opts = ["RESNET_DET.DATA.COCO", sets, "DATASETS.TRAIN", "('plain_train',)", "DATASETS.TEST", "('plain_val',)"]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 6, "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2]
    opts += ["MODEL.ROI_BOX_HEAD.FC_DIM", 64, "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", 96]
    opts += ["DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", tmp_path / "out"]
    config = ["--config-file", "configs/demo/mask_rcnn_R_18_FPN.yaml"]
    run = run_tool_here("plain_train_net.py", *config, *opts)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    assert lines[-1]["iteration"] == 1
    assert lines[-1]["total_loss"] > 0
    trained = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(trained) == {"bbox", "segm"}
    weights = ["MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth"]
    assert run_tool_here("plain_train_net.py", *config, "--eval-only", *opts, *weights).returncode == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == trained
