"""From a data set to a detector whose backbone was pretrained on the data set's own objects, by three commands."""

from __future__ import annotations

import torch
from models import QUICK

from resnet_det.weights import read_tensors

SMALL = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2"]


def test_objects_are_cut_out_classified_and_then_detected(run_tool_here, small_data, tmp_path):
    def run(name, *args):
        done = run_tool_here(name, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sets = []
    for path, images in (small_data["train"], small_data["val"]):
        sets += ["--annotations", path, "--images", images]
    told = run("prepare_dataset.py", "crops", *sets, "--min-size", 4, "--output", tmp_path / "crops")
    assert f"{tmp_path}/crops/train: " in told

    keys = "RESNET_DET.CLASSIFICATION"
    shape = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "DATALOADER.NUM_WORKERS", 0]
    sizes = [f"{keys}.SIZE_TRAIN", 32, f"{keys}.RESIZE_TEST", 32, f"{keys}.SIZE_TEST", 32]
    length = ["RESNET_DET.TRAIN.EPOCHS", 0, "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 4]
    run("train_classifier.py", "--data", tmp_path / "crops", *shape, *sizes, *length, "OUTPUT_DIR", tmp_path / "pre")
    weights = tmp_path / "pre" / "classifier.safetensors"

    config = ["--config-file", "configs/COCO-Detection/faster_rcnn_R_18_FPN_1x.yaml"]
    data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"], *shape, *SMALL, *QUICK]
    still = ["SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 0, "OUTPUT_DIR", tmp_path / "det"]
    run("train_net.py", *config, *data, "MODEL.WEIGHTS", weights, *still)
    before, after = read_tensors(weights), read_tensors(tmp_path / "det" / "model_final.pth")
    convolutions = [name for name in before if ".conv" in name and name.endswith("weight") and "norm" not in name]
    assert len(convolutions) == 17
    assert all(torch.equal(before[name], after[f"backbone.bottom_up.{name}"]) for name in convolutions)
    assert (tmp_path / "det" / "results.json").is_file()
