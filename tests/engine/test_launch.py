"""Several processes on the CPU by Detectron2's launcher; test_processes.py has those of torchrun."""

from __future__ import annotations

import json

import pytest

from resnet_det.engine import build_train_parser, launch, train_or_evaluate
from resnet_det.errors import InputError

TWO_PROCESSES = ["--num-gpus", "2", "--dist-url", "auto"]


def test_two_processes_train_and_evaluate(make_args, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    args = build_train_parser().parse_args([*TWO_PROCESSES, *make_args("SOLVER.MAX_ITER", 2)])
    launch(train_or_evaluate, args)
    assert "World size: 2" in capfd.readouterr().out
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm"}


def test_a_wrong_input_is_one_message_of_each_process(capfd):
    args = build_train_parser().parse_args([*TWO_PROCESSES, "--config-file", "no.yaml"])
    with pytest.raises(SystemExit) as stopped:
        launch(train_or_evaluate, args)
    assert stopped.value.code == 2
    printed = capfd.readouterr().err
    assert "process 1: --config-file no.yaml: no such file" in printed
    assert "Traceback" not in printed


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(InputError, match="--num-gpus 4: this machine has 1"):
        launch(print, build_train_parser().parse_args(["--num-gpus", "4"]))
