"""Small runs of the demo's config."""

from __future__ import annotations

import pytest
import torch
from models import NARROW, QUICK

from resnet_det.engine import Trainer, build_train_parser, setup_cfg

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


@pytest.fixture
def make_args(small_data, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def make(*opts, out="out"):
        data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
        fixed = ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "2", *QUICK, *NARROW]
        fixed += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "SOLVER.MAX_ITER", "4"]
        return ["--config-file", DEMO, *data, *fixed, "OUTPUT_DIR", str(tmp_path / out), *map(str, opts)]

    return make


@pytest.fixture
def make_trainer(make_args):
    def make(*opts, out="out"):
        # --resume: what is in the folder may stay; whether it counts, resume_or_load is told.
        cfg = setup_cfg(build_train_parser().parse_args(["--resume", *make_args(*opts, out=out)]))
        torch.manual_seed(cfg.SEED)  # as default_setup does
        return Trainer(cfg)

    return make
