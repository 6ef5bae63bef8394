"""Several processes on the CPU: under torchrun and by Detectron2's launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from resnet_det.engine import build_train_parser, launch
from resnet_det.errors import InputError


@pytest.mark.parametrize("launcher", ["torchrun", "--num-gpus"])
def test_two_processes_train_and_evaluate(small_data, tmp_path, request, launcher):
    tool = str(request.config.rootpath / "tools" / "train_net.py")
    data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
    opts = [
        "SOLVER.MAX_ITER",
        "2",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "INPUT.MIN_SIZE_TRAIN",
        "(96,)",
        "INPUT.MIN_SIZE_TEST",
        "96",
    ]
    opts += ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "OUTPUT_DIR", str(tmp_path / "out")]
    start = [sys.executable]
    if launcher == "torchrun":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tool]
    else:
        start += [tool, "--num-gpus", "2", "--dist-url", "auto"]
    command = [*start, "--config-file", "configs/demo/mask_rcnn_R_18_FPN.yaml", *data, *opts]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "World size: 2" in run.stdout
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm"}


def test_a_wrong_input_is_one_message_of_each_process(tmp_path, request):
    command = [sys.executable, "tools/train_net.py", "--num-gpus", "2", "--dist-url", "auto"]
    command += ["--config-file", "no.yaml", "OUTPUT_DIR", str(tmp_path / "out")]
    run = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "process 1: --config-file no.yaml: no such file" in run.stderr
    assert "Traceback" not in run.stderr


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(InputError, match="--num-gpus 4: this machine has 1"):
        launch(print, build_train_parser().parse_args(["--num-gpus", "4"]))
