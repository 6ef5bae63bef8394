"""Real COCO images under Detectron2's own data set names, with one of our COCO configs."""

from __future__ import annotations

import os
import subprocess
import sys

from models import QUICK


def test_training_and_evaluation_on_coco_images(shared_data, tmp_path, request):
    environment = {**os.environ, "DETECTRON2_DATASETS": str(shared_data("coco_mini")), "OMP_NUM_THREADS": "1"}
    opts = ["OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0"]
    opts += ["MODEL.RESNETS.NORM", "GN", "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", *QUICK]
    opts += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "RESNET_DET.TEST.MAX_IMAGES", "12"]
    opts += [
        "DATALOADER.NUM_WORKERS",
        "0",
        "MODEL.RPN.POST_NMS_TOPK_TRAIN",
        "200",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "50",
    ]
    config = "configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_1x.yaml"
    command = [sys.executable, "tools/train_net.py", "--config-file", config, *opts]
    run = subprocess.run(command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Evaluation results for coco_2017_val" in run.stdout
    assert (tmp_path / "results.json").is_file()
