"""What two processes agree on: gradients, numbers, signals, failures, decisions."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.utils.events import EventStorage
from torch import multiprocessing as mp
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # of the spawned processes

VALUES = [[1.0, 3.0], [2.0, -1.0], [0.5, 4.0], [1.0, 1.0], [2.0, 5.0], [7.0, 1.0]]  # of each pass, for each process


class Quadratic(nn.Module):
    """Its gradients depend on its weights and on the values, and on a number of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.normalizer = 10.0

    def forward(self, batch):
        values = torch.tensor([sample["value"] for sample in batch])
        self.normalizer = 0.9 * self.normalizer + 0.1 * float(values.nan_to_num().abs().mean())
        return {"loss": ((self.weight[None] - values[:, None]) ** 2).mean()}


def make_step(batches, *, shared, **options):
    from resnet_det.engine.model_setup import share_among_processes
    from resnet_det.engine.step import TrainStep

    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model = share_among_processes(model) if shared else model
    return TrainStep(model, lambda _: iter(batches), optimizer, **options)


def run(step, count):
    with EventStorage() as storage:
        for step.iter in range(count):
            storage.iter = step.iter
            step.run_step()
    return storage


def work(rank, folder):
    from detectron2.utils import comm

    from resnet_det.engine.launch import _leave_process_group

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(2)
    for job in (train_with_accumulation, norms_before_a_checkpoint, fail_in_the_second, signal_the_second, decide):
        torch.save(job(rank, Path(folder)), Path(folder, f"{job.__name__}_{rank}.pth"))
    _leave_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes have left: started once for all tests, as starting them is what takes time."""
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        mp.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.fixture
def in_two_processes(folder):
    return lambda job: [torch.load(folder / f"{job.__name__}_{rank}.pth") for rank in range(2)]


def batch_of(*values):
    return [{"image_id": f"image{value}", "value": value} for value in values]


def train_with_accumulation(rank, _):
    step = make_step([batch_of(values[rank]) for values in VALUES], shared=True, accumulate=2)
    storage = run(step, 3)
    step.skipped[f"{rank}.jpg"] = "truncated"
    step.prepare_to_save()
    numbers = step.state_dict()["numbers"]
    loss = storage.latest()["total_loss"][0] if rank == 0 else None
    return {"weight": step.model.module.weight.detach(), "numbers": numbers, "loss": loss, "skipped": step.skipped}


def test_gradients_are_averaged_over_processes_and_passes(in_two_processes):
    both = in_two_processes(train_with_accumulation)
    alone = make_step([batch_of(*VALUES[number], *VALUES[number + 1]) for number in (0, 2, 4)], shared=False)
    storage = run(alone, 3)
    assert torch.equal(both[0]["weight"], both[1]["weight"]), "else they are two runs"
    torch.testing.assert_close(both[0]["weight"], alone.model.weight.detach(), rtol=1e-6, atol=0)
    assert both[0]["loss"] == pytest.approx(storage.latest()["total_loss"][0], rel=1e-6)
    assert both[0]["numbers"] == both[1]["numbers"]
    assert both[0]["numbers"][0] != both[0]["numbers"][1], "each process has its own"


def test_a_checkpoint_has_the_skipped_images_of_all_processes(in_two_processes):
    both = in_two_processes(train_with_accumulation)
    assert [one["skipped"] for one in both] == [{"0.jpg": "truncated", "1.jpg": "truncated"}] * 2


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, batch):
        return {"loss": self.norm(torch.tensor([sample["value"] for sample in batch])).square().mean()}


def norms_before_a_checkpoint(rank, _):
    from resnet_det.engine.model_setup import share_among_processes
    from resnet_det.engine.step import TrainStep

    model = share_among_processes(Normed())
    batch = batch_of([1.0 + rank, 2.0], [3.0, 5.0 - rank])
    step = TrainStep(model, lambda _: iter([batch]), torch.optim.SGD(model.parameters(), lr=0.1), ema_decay=0.5)
    run(step, 1)
    means = [model.module.norm.running_mean.clone()]
    step.prepare_to_save()
    return means + [norm.running_mean for norm in (model.module.norm, step.ema.module.norm)]


def test_processes_evaluate_what_the_checkpoint_has(in_two_processes):
    first, second = in_two_processes(norms_before_a_checkpoint)
    assert not torch.equal(first[0], second[0]), "each has seen other images"
    assert torch.equal(first[0], first[1])
    assert all(torch.equal(one, other) for one, other in zip(first[1:], second[1:], strict=True))


def fail_in_the_second(rank, folder):
    from resnet_det.engine.failures import TrainingFailedError

    values = [1.0, math.nan if rank == 1 else 2.0]
    step = make_step([batch_of(value) for value in values], shared=True, output_dir=str(folder))
    try:
        run(step, 2)
    except TrainingFailedError as error:
        return {"said": str(error), "iteration": step.iter, "weight": step.model.module.weight.detach()}


def test_what_is_not_finite_in_one_process_ends_all_and_names_its_images(in_two_processes, folder):
    first, second = in_two_processes(fail_in_the_second)
    assert "iteration 1: see what process 1 says" in first["said"]
    assert "iteration 1 in process 1, on image ids imagenan: the loss is not finite" in second["said"]
    assert [path.name for path in folder.glob("failed_batch*")] == ["failed_batch_rank1_iter1.pth"]
    assert torch.equal(first["weight"], second["weight"])
    assert torch.isfinite(first["weight"]).all()


def signal_the_second(rank, _):
    step = make_step([batch_of(1.0)] * 5, shared=True)
    agreed = []
    with EventStorage() as storage:
        for step.iter in range(4):
            storage.iter = step.iter
            step.signalled = rank == 1 and step.iter == 2
            step.run_step()
            agreed.append(step.stop_agreed)
    return agreed


def test_a_signal_to_one_process_is_known_to_all_after_the_same_step(in_two_processes):
    assert in_two_processes(signal_the_second) == [[False, False, True, True]] * 2


def decide(rank, _):
    from resnet_det.engine.agreement import check_everywhere, decide_once
    from resnet_det.errors import InputError

    said = [decide_once(lambda: f"of {rank}")]

    def wrong():
        raise InputError(f"wrong in {rank}")

    def bug():
        raise KeyError(f"bug in {rank}")

    for attempt in (lambda: decide_once(wrong), lambda: check_everywhere("no file" if rank == 1 else None)):
        try:
            attempt()
        except InputError as error:
            said.append(str(error))
    try:
        decide_once(bug)
    except Exception as error:
        said.append(type(error).__name__)
    check_everywhere(None)
    return said


def test_the_first_process_decides_for_all(in_two_processes):
    first, second = in_two_processes(decide)
    assert first == ["of 0", "wrong in 0", "process 1: no file", "KeyError"]
    assert second == ["of 0", "wrong in 0", "process 1: no file", "RuntimeError"]
