"""Training in processes of its own, several under torchrun: the same losses, and the end of one ends all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training import EVERYTHING_ON, NO_SAMPLING, assert_same_run, final_state, square_images


def run_tool(args, tmp_path, request, *, processes=1, patch="", wait=True, torchrun=()):
    """Run tools/train_net.py, with ``patch`` executed before, alone or by torchrun (with more of its flags)."""
    script = tmp_path / "run.py"
    tools = str(request.config.rootpath / "tools")
    script.write_text(
        f"import sys\nsys.path.insert(0, {tools!r})\nimport train_net\n{patch}\nsys.exit(train_net.main())\n"
    )
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += torchrun
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "printed.txt"  # no pipe: one that nobody reads stops the process
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, str(script), *args], cwd=request.config.rootpath, env=environment, stdout=file, stderr=file
        )
    if not wait:
        return process
    process.wait(timeout=300)
    return process.returncode, log.read_text()


def losses_of(folder):
    lines = [json.loads(line) for line in Path(folder, "metrics.json").read_text().splitlines()]
    return [line["total_loss"] for line in lines if "total_loss" in line]


def test_two_processes_train_and_evaluate(make_args, tmp_path, request):
    code, output = run_tool(make_args("SOLVER.MAX_ITER", 2), tmp_path, request, processes=2)
    assert code == 0, output[-3000:]
    assert "World size: 2" in output
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm", "facts"}


EVERY_ITERATION = """
from detectron2.engine import hooks
start = hooks.PeriodicWriter.__init__
hooks.PeriodicWriter.__init__ = lambda self, writers, period: start(self, writers, 1)
from detectron2.utils.events import JSONWriter
begin = JSONWriter.__init__
JSONWriter.__init__ = lambda self, path: begin(self, path, window_size=1)
"""


@pytest.mark.long
def test_two_processes_have_the_losses_of_one(make_trainer, make_args, tmp_path, request):
    opts = [*NO_SAMPLING, *square_images(), "SOLVER.MAX_ITER", 20]
    opts += ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 1e-4]
    alone = make_trainer(*opts, out="alone")
    alone.train()
    code, output = run_tool(make_args(*opts), tmp_path, request, processes=2, patch=EVERY_ITERATION)
    assert code == 0, output[-3000:]
    losses = losses_of(tmp_path / "out")
    assert len(losses) == 20
    assert losses == pytest.approx([loss for loss, _ in alone.storage.history("total_loss").values()], rel=1e-4)


NAN_ON_RANK_1 = """
from detectron2.utils import comm
from resnet_det.engine import step
forward = step.TrainStep._forward_and_backward
def fail(self, batch, **kwargs):
    if self.iter == 1 and comm.get_rank() == 1:
        self.model.module.backbone.bottom_up.stem.conv1.weight.data.fill_(float("nan"))
    return forward(self, batch, **kwargs)
step.TrainStep._forward_and_backward = fail
"""


@pytest.mark.long
def test_a_loss_that_is_not_finite_on_one_process_ends_all(make_args, tmp_path, request):
    start = time.monotonic()
    code, output = run_tool(make_args(), tmp_path, request, processes=2, patch=NAN_ON_RANK_1)
    assert code != 0
    assert time.monotonic() - start < 90, "nobody hangs"
    assert "at iteration 1 in process 1, on image ids" in output
    assert (tmp_path / "out" / "failed_batch_rank1_iter1.pth").is_file()


@pytest.mark.long
def test_killing_one_process_ends_the_other(make_args, tmp_path, request):
    process = run_tool(make_args("SOLVER.MAX_ITER", 5000), tmp_path, request, processes=2, wait=False)
    wait_for_numbers(tmp_path / "out" / "metrics.json")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2
    start = time.monotonic()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.wait(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode != 0


@pytest.mark.long
def test_nothing_is_left_of_a_run_that_is_killed(make_args, tmp_path, request):
    args = make_args("SOLVER.MAX_ITER", 5000, "DATALOADER.NUM_WORKERS", 2, "RESNET_DET.DATA.PREFETCH_FACTOR", 4)
    process = run_tool(args, tmp_path, request, processes=2, wait=False)
    wait_for_numbers(tmp_path / "out" / "metrics.json")
    family = descendants(process.pid)
    assert len(family) >= 6  # two processes with two workers each
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path("/proc", str(pid)).exists() for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def descendants(pid):
    """The processes that one started, and those that they started."""
    found = []
    for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split():
        found += [int(child), *descendants(int(child))]
    return found


def wait_for_numbers(metrics):
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.long
def test_torchrun_restarts_and_the_run_goes_on(make_args, tmp_path, request):
    marker = tmp_path / "died"
    patch = f"""
import os, pathlib, signal
from resnet_det.engine import step
forward = step.TrainStep._forward_and_backward
def die_once(self, batch, **kwargs):
    if self.iter == 2 and os.environ["RANK"] == "1" and not pathlib.Path({str(marker)!r}).exists():
        pathlib.Path({str(marker)!r}).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, batch, **kwargs)
step.TrainStep._forward_and_backward = die_once
"""
    args = make_args("SOLVER.CHECKPOINT_PERIOD", 1, "RESNET_DET.TEST.MAX_IMAGES", 1)
    code, output = run_tool(args, tmp_path, request, processes=2, patch=patch, torchrun=["--max-restarts", "1"])
    assert code == 0, output[-3000:]
    assert marker.exists()
    assert "Starting training from iteration 2" in output
    assert final_state(tmp_path / "out")["iteration"] == 3


def test_sigterm_saves_and_ends_cleanly(make_args, tmp_path, request):
    patch = """
import os, signal
from resnet_det.engine import step
forward = step.TrainStep._forward_and_backward
def send(self, batch, **kwargs):
    if self.iter == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return forward(self, batch, **kwargs)
step.TrainStep._forward_and_backward = send
"""
    code, output = run_tool(make_args("SOLVER.MAX_ITER", 500), tmp_path, request, patch=patch)
    assert code == 0, output[-3000:]
    assert "stopped by a signal; continue with --resume" in output
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_0000002.pth"


def test_sigterm_to_the_whole_group_saves_too(make_args, tmp_path, request):
    """As torchrun and SLURM send it: to the loader's workers at the same moment."""
    patch = """
import os, signal
from resnet_det.engine import step
os.setpgrp()
forward = step.TrainStep._forward_and_backward
def send(self, batch, **kwargs):
    if self.iter == 4:
        os.killpg(0, signal.SIGTERM)
        os.killpg(0, signal.SIGUSR1)
    return forward(self, batch, **kwargs)
step.TrainStep._forward_and_backward = send
"""
    code, output = run_tool(
        make_args("SOLVER.MAX_ITER", 500, "DATALOADER.NUM_WORKERS", 2), tmp_path, request, patch=patch
    )
    assert code == 0, output[-3000:]
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_0000004.pth"


DIE_WHILE_SAVING = """
import os, signal, torch
save = torch.save
def die(content, file, *args, **kwargs):
    save(content, file, *args, **kwargs)
    if isinstance(content, dict) and "trainer" in content and content["iteration"] == 5:
        file.truncate(1000)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = die
"""


RETINANET = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_resnet_det_fpn_backbone"]
RETINANET += ["MODEL.MASK_ON", "False", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"]
RETINANET += ["MODEL.RESNETS.OUT_FEATURES", "['res3', 'res4', 'res5']", "MODEL.RETINANET.NUM_CONVS", "1"]
RETINANET += ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [128], [256], [512]]"]


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("architecture", [[], RETINANET], ids=["Mask R-CNN", "RetinaNet"])
def test_ten_kills_change_nothing(make_args, tmp_path, request, architecture, num_workers):
    """SIGKILL while a checkpoint is written, then SIGKILL or SIGTERM at random moments, those of evaluations too."""
    opts = [*architecture, *EVERYTHING_ON, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", num_workers]
    opts += ["SOLVER.MAX_ITER", 40, "TEST.EVAL_PERIOD", 5, "RESNET_DET.TEST.VAL_LOSS", True, "SEED", 7]
    code, output = run_tool(make_args(*opts, out="whole"), tmp_path, request)
    assert code == 0, output[-3000:]
    kills = random.Random(f"{num_workers} {len(architecture)}")
    folder = tmp_path / "parts"
    code, _ = run_tool([*make_args(*opts, out="parts")], tmp_path, request, patch=DIE_WHILE_SAVING)
    assert code == -signal.SIGKILL
    assert (folder / "last_checkpoint").read_text() == "model_0000003.pth"
    resume = ["--resume", *make_args(*opts, out="parts")]
    for _ in range(9):
        process = run_tool(resume, tmp_path, request, wait=False)
        before = len(list(folder.glob("model_*.pth")))
        deadline = time.monotonic() + 120
        while (
            len(list(folder.glob("model_*.pth"))) == before and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        time.sleep(kills.uniform(0, 3))
        process.send_signal(kills.choice([signal.SIGKILL, signal.SIGTERM]))
        process.wait(timeout=120)
    code, output = run_tool(resume, tmp_path, request)
    assert code == 0, output[-3000:]
    assert_same_run(final_state(tmp_path / "whole"), final_state(folder))
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "parts")]
    facts = [result.pop("facts") for result in results]
    assert (results[0], facts[0]) == (results[1], facts[1])
    best = [torch.load(tmp_path / name / "model_best.pth", weights_only=True) for name in ("whole", "parts")]
    assert best[0]["iteration"] == best[1]["iteration"]


STUCK = """
import ctypes, os, signal
from resnet_det.engine import step
forward = step.TrainStep._forward_and_backward
def hang(self, batch, **kwargs):
    if self.iter == 1:
        os.write(1, b"now in C ")
        lock = ctypes.PyDLL(None).pthread_mutex_lock  # in C, with the interpreter's lock: no Python runs
        mutex = ctypes.create_string_buffer(64)
        lock(mutex), lock(mutex)  # for ever, whatever signal comes
    return forward(self, batch, **kwargs)
step.TrainStep._forward_and_backward = hang
"""


def test_a_process_that_is_stuck_outside_python_is_ended(make_args, tmp_path, request):
    args = make_args("RESNET_DET.TRAIN.GRACE_SECONDS", 2)
    process = run_tool(args, tmp_path, request, patch=STUCK, wait=False)
    log, deadline = tmp_path / "printed.txt", time.monotonic() + 120
    while "now in C" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert 1.5 < time.monotonic() - start < 30
    assert "did not exit within RESNET_DET.TRAIN.GRACE_SECONDS of a signal: killed" in log.read_text()


@pytest.mark.long
def test_an_evaluation_that_is_interrupted_in_two_processes_ends_both_and_is_made_up_for(make_args, tmp_path, request):
    patch = f"""
import os, pathlib, signal, time
from detectron2.evaluation import DatasetEvaluator
from resnet_det.engine import Trainer
test = Trainer.test.__func__
def wait(cls, *args, **kwargs):
    if not pathlib.Path({str(tmp_path)!r}, "again").exists():
        pathlib.Path({str(tmp_path)!r}, f"evaluating{{os.environ['RANK']}}").touch()
        time.sleep(600)
    return test(cls, *args, **kwargs)
Trainer.test = classmethod(wait)
"""
    args = make_args("SOLVER.MAX_ITER", 2)
    process = run_tool(args, tmp_path, request, processes=2, patch=patch, wait=False)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("evaluating*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_final.pth"
    assert not (tmp_path / "out" / "results.json").exists()
    (tmp_path / "again").touch()
    code, output = run_tool(["--resume", *args], tmp_path, request, processes=2, patch=patch)
    assert code == 0, output[-3000:]
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm", "facts"}
