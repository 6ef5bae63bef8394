"""Several processes on the CPU by Detectron2's launcher; test_processes.py has those of torchrun."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.utils import comm

from resnet_det.engine import build_train_parser, launch, train_or_evaluate
from resnet_det.engine.launch import TIMEOUT, _create_local_process_group, choose_url, uses_gpu
from resnet_det.errors import InputError

TWO_PROCESSES = ["--num-gpus", "2", "--dist-url", "auto"]


def test_two_processes_train_and_evaluate(make_args, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    args = build_train_parser().parse_args([*TWO_PROCESSES, *make_args("SOLVER.MAX_ITER", 2)])
    launch(train_or_evaluate, args)
    assert "World size: 2" in capfd.readouterr().out
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm", "facts"}


def test_a_wrong_input_is_one_message_of_each_process(capfd):
    args = build_train_parser().parse_args([*TWO_PROCESSES, "--config-file", "no.yaml"])
    with pytest.raises(SystemExit) as stopped:
        launch(train_or_evaluate, args)
    assert stopped.value.code == 2
    printed = capfd.readouterr().err
    assert "process 1: --config-file no.yaml: no such file" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "auto"),
        (["--dist-url", "tcp://127.0.0.1:7777"], "tcp://127.0.0.1:7777"),
        (["--num-machines", "2"], build_train_parser().get_default("dist_url")),
    ],
)
def test_jobs_of_one_user_do_not_share_a_port(flags, expected):
    assert choose_url(build_train_parser().parse_args(["--num-gpus", "2", *flags])) == expected


@pytest.mark.parametrize(
    ("cuda", "opts", "expected"),
    [
        (True, [], True),
        (False, [], False),
        (True, ["MODEL.DEVICE", "cpu"], False),
        (True, ["MODEL.DEVICE", "cuda"], True),
        (True, ["train.device=cpu"], False),
    ],
)
def test_a_model_on_the_cpu_does_not_talk_by_nccl(cuda, opts, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert uses_gpu(build_train_parser().parse_args(opts)) is expected


@pytest.mark.parametrize(("opts", "expected"), [([], False), (["MODEL.DEVICE", "cuda"], True)])
def test_a_config_file_says_where_the_model_is(opts, expected, monkeypatch, tmp_path):
    (tmp_path / "on_cpu.yaml").write_text("MODEL:\n  DEVICE: cpu\n")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    args = build_train_parser().parse_args(["--config-file", str(tmp_path / "on_cpu.yaml"), *opts])
    assert uses_gpu(args) is expected


def test_processes_wait_for_one_that_evaluates():
    assert TIMEOUT.total_seconds() >= 3600


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(InputError, match="--num-gpus 4: this machine has 1"):
        launch(print, build_train_parser().parse_args(["--num-gpus", "4"]))


@pytest.mark.parametrize("rank", range(4))
def test_processes_of_a_machine_are_a_group(monkeypatch, rank):
    """Two machines of two processes each, as Detectron2 v0.5 is told."""
    monkeypatch.delattr(comm, "create_local_process_group", raising=False)
    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "new_group", list)
    _create_local_process_group(2)
    expected = [0, 1] if rank < 2 else [2, 3]
    assert expected == comm._LOCAL_PROCESS_GROUP
