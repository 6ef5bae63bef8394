"""The training step by itself, on models of a few numbers: what it promises of gradients, weights and errors."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage, get_event_storage
from fvcore.nn import sigmoid_focal_loss_jit
from torch import nn

from resnet_det.engine.failures import TrainingFailedError
from resnet_det.engine.hooks.validation_loss import mean_losses, validation_losses
from resnet_det.engine.kept_numbers import average_numbers, find_changes, numbers_kept, read_numbers, write_numbers
from resnet_det.engine.moving_average import MovingAverage
from resnet_det.engine.step import MAX_SKIPPED_STEPS, TrainStep, send_images
from resnet_det.engine.updates import apply_step, clip_and_measure, load_optimizer_state
from resnet_det.errors import InputError


class Squares(nn.Module):
    """Losses of a batch of {"image_id", "value"}: the mean of weight * value, as long as values are finite."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.normalizer = 100  # as RetinaNet's: a running mean that is no buffer

    def forward(self, batch):
        values = torch.tensor([sample["value"] for sample in batch])
        self.normalizer = 0.9 * self.normalizer + 0.1 * float(values.nan_to_num().abs().mean())
        get_event_storage().put_scalar("inner", self.normalizer)
        if self.training and any(sample.get("bug") for sample in batch):
            raise KeyError("gt_masks")
        loss = (self.weight * values.nan_to_num(0.0).mean()).sum() / self.normalizer
        if values.isnan().any():  # a finite loss whose gradient is not
            loss = loss + (self.weight - self.weight.detach()).abs().sqrt().sum()
        return {"loss": loss}


def make_batches(values, **more):
    return [[{"image_id": f"image{number}", "value": value, **more}] for number, value in enumerate(values)]


def make_step(values=(1.0,) * 40, *, batches=None, optimizer=torch.optim.SGD, tmp_path="", lr=0.1, **options):
    model = Squares()
    batches = batches or make_batches(values)
    accumulate = options.get("accumulate", 1)
    return TrainStep(
        model,
        lambda start: iter(batches[start * accumulate :]),
        optimizer(model.parameters(), lr=lr),
        output_dir=str(tmp_path),
        **options,
    )


def run(step, count, start=0):
    with EventStorage(start) as storage:
        for step.iter in range(start, start + count):
            storage.iter = step.iter
            step.run_step()
        return storage


CLIPPED = 1e-3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("clipping", ["", "value", "norm", "global"])
def test_float16_moves_weights_as_float32_does(kind, fused, clipping):
    """A fused optimizer lets the scaler unscale nothing before it steps: what clips then clips scaled gradients."""
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clipping in ("value", "norm")
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clipping if clipping in ("value", "norm") else "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = CLIPPED
    moved = []
    for dtype in (None, torch.float16):

        def make(parameters, lr):
            return maybe_add_gradient_clipping(cfg, kind(parameters, lr=lr, fused=fused))

        step = make_step(optimizer=make, amp_dtype=dtype, clip_grad_norm=CLIPPED * (clipping == "global"), lr=0.5)
        run(step, 3)
        moved.append(step.model.weight.detach() - 1)
        state = step.optimizer.state_dict()["state"]
        if kind is torch.optim.AdamW:
            assert state[0]["exp_avg"].abs().max() < 0.01
    assert moved[0].abs().min() > 1e-4
    torch.testing.assert_close(moved[1], moved[0], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_gradient_that_is_not_finite_names_its_own_images_and_leaves_the_weights(dtype, tmp_path):
    step = make_step([1.0, 1.0, math.nan, 1.0], amp_dtype=dtype, ema_decay=0.5, tmp_path=tmp_path)
    run(step, 2)
    before = step.model.weight.detach().clone()
    with pytest.raises(
        TrainingFailedError, match=r"iteration 2 in process 0, on image ids image2: .*gradients are not"
    ):
        run(step, 1, start=2)
    assert torch.equal(step.model.weight, before)
    assert torch.load(tmp_path / "failed_batch_rank0_iter2.pth", weights_only=False)[0]["image_id"] == "image2"


def test_a_loss_that_is_not_finite_names_the_batch_of_the_step_that_has_it(tmp_path):
    step = make_step([1.0, 1.0, 1.0, math.inf, 1.0, 1.0], accumulate=2, tmp_path=tmp_path)
    run(step, 1)
    with pytest.raises(TrainingFailedError, match=r"image ids image3: the loss is not finite: loss inf.*learning rate"):
        run(step, 1, start=1)
    assert torch.isfinite(step.model.weight).all()


def test_float16_leaves_steps_out_and_stops_when_it_never_ends(tmp_path):
    step = make_step([1.0, math.nan, 1.0], amp_dtype=torch.float16, tmp_path=tmp_path)
    run(step, 1)
    before, scale = step.model.weight.detach().clone(), step.grad_scaler.get_scale()
    run(step, 1, start=1)
    assert torch.equal(step.model.weight, before)
    assert step.grad_scaler.get_scale() == scale / 2
    assert step.state_dict()["skipped_steps"] == 1
    run(step, 1, start=2)
    assert not torch.equal(step.model.weight, before)
    assert step.state_dict()["skipped_steps"] == 0
    step = make_step([math.nan] * 40, amp_dtype=torch.float16, tmp_path=tmp_path)
    with pytest.raises(TrainingFailedError, match=rf"not finite in {MAX_SKIPPED_STEPS + 1} steps in a row"):
        run(step, 40)
    assert step.iter == MAX_SKIPPED_STEPS


def test_a_bug_keeps_its_kind_its_traceback_and_its_batch(tmp_path):
    step = make_step(batches=make_batches([1.0, 2.0], bug=True), tmp_path=tmp_path)
    with pytest.raises(KeyError) as caught:
        run(step, 1)
    assert not isinstance(caught.value, InputError)
    assert any(entry.name == "forward" for entry in caught.traceback)
    (note,) = caught.value.__notes__
    assert "at iteration 0 in process 0, on image ids image0; the batch was saved to" in note
    assert (tmp_path / "failed_batch_rank0_iter0.pth").is_file()


def test_a_bug_in_a_mapper_keeps_its_traceback(tmp_path):
    def batches(_):
        raise KeyError("segmentation")
        yield

    step = make_step(tmp_path=tmp_path)
    step.load_batches = batches
    with pytest.raises(KeyError) as caught:
        run(step, 1)
    assert "at iteration 0 in process 0" in caught.value.__notes__[0]


def test_accumulated_numbers_of_a_module_are_those_of_one_large_batch():
    values = [3.0, 5.0]
    large = make_step(batches=[[sample for batch in make_batches(values) for sample in batch]])
    small = make_step(values, accumulate=2)
    run(large, 1)
    run(small, 1)
    assert small.model.normalizer == pytest.approx(large.model.normalizer, rel=1e-12)


def test_numbers_of_modules_are_resumed_and_kept_from_validation():
    whole = make_step([float(value) for value in range(1, 9)], ema_decay=0.9)
    run(whole, 4)
    parts = make_step([float(value) for value in range(1, 9)], ema_decay=0.9)
    run(parts, 2)
    saved = parts.state_dict()
    assert saved["numbers"] == [{":normalizer": parts.model.normalizer}]
    weights = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    resumed = make_step([float(value) for value in range(1, 9)], ema_decay=0.9)
    resumed.model.load_state_dict(weights)
    resumed.load_state_dict(saved)
    with EventStorage() as storage:
        first = validation_losses(resumed.ema.module, resumed.model, make_batches([50.0, 70.0]))
        again = validation_losses(resumed.ema.module, resumed.model, make_batches([50.0, 70.0]))
        assert "inner" not in storage.latest()
    assert first == again
    assert set(first) == {"validation_total_loss", "validation_loss"}
    with EventStorage():
        assert (
            mean_losses(resumed.model, make_batches([50.0]))["loss"]
            != mean_losses(resumed.ema.module, make_batches([50.0]))["loss"]
        )
    run(resumed, 2, start=2)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert resumed.model.normalizer == whole.model.normalizer
    assert torch.equal(resumed.ema.module.weight, whole.ema.module.weight)


def test_numbers_are_read_changed_averaged_and_put_back():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Squares())
    before = read_numbers(model)
    assert ("0", "in_channels") in before
    with numbers_kept(model):
        model[1].normalizer, model[1].added, model[0].seen = 5.0, 3, torch.ones(2)
        changes = find_changes(before, read_numbers(model))
        assert changes.keys() == {("1", "normalizer"), ("1", "added"), ("0", "seen")}
    assert find_changes(before, read_numbers(model)) == {}
    assert not hasattr(model[1], "added")
    write_numbers(model, before | changes)
    assert model[1].normalizer == 5.0
    assert torch.equal(model[0].seen, torch.ones(2))
    assert average_numbers([{("", "a"): 1.0, ("", "n"): 3}, {("", "a"): 2.0, ("", "n"): 3}]) == {
        ("", "a"): 1.5,
        ("", "n"): 3,
    }


def test_numbers_of_each_process_are_kept_for_it(monkeypatch):
    step = make_step()
    state = {**step.state_dict(), "numbers": [{":normalizer": 1.0}, {":normalizer": 3.0}]}
    step.load_state_dict(state)
    assert step.model.normalizer == 2.0  # one process now
    monkeypatch.setattr("resnet_det.engine.step.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("resnet_det.engine.step.comm.get_rank", lambda: 1)
    step.load_state_dict(state)
    assert step.model.normalizer == 3.0


def test_the_moving_average_forgets_the_first_weights():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = MovingAverage(model, 0.9998)
    for number in range(1500):
        nn.init.constant_(model[0].weight, 0.0 if number < 100 else 1.0)
        average.update(model)
    assert average.module[0].weight.item() > 0.999  # 0.26 without a warm-up
    decay = [min(0.5, number / (number + 9)) for number in range(4)]
    average, expected = MovingAverage(model, 0.5), 0.0
    for number, value in enumerate((4.0, 7.0, 1.0, 2.0)):
        nn.init.constant_(model[0].weight, value)
        model[1].num_batches_tracked.fill_(number)
        average.update(model)
        expected = decay[number] * expected + (1 - decay[number]) * value
    assert average.module[0].weight.item() == pytest.approx(expected, rel=1e-6)
    assert average.module[1].num_batches_tracked.item() == 3
    again = MovingAverage(model, 0.5)
    again.load_state_dict(average.state_dict())
    assert again.updates == 4
    assert torch.equal(again.module[0].weight, average.module[0].weight)


def test_numbers_of_a_step_are_written():
    step = make_step([2.0, 2.0], clip_grad_norm=1e-6)
    storage = run(step, 2)
    latest = storage.latest()
    assert latest["grad_norm"] == (pytest.approx(2 * 2.0 / (0.81 * 100 + 0.1 * 2 * 1.9), rel=1e-5), 1)
    assert latest["total_loss"][1] == 1
    assert latest["data_time"][0] >= 0
    assert step.model.weight.grad.norm().item() == pytest.approx(1e-6, rel=1e-3)


def test_other_precision_and_optimizer_of_a_resumed_run():
    plain = make_step()
    run(plain, 1)
    half = make_step(amp_dtype=torch.float16)
    half.load_state_dict(plain.state_dict())  # float32 has no scale
    run(half, 1, start=1)
    plain.load_state_dict(half.state_dict())
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], fused=True)
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch.ones(1)
    optimizer.step()
    other = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.5, foreach=True)
    load_optimizer_state(other, optimizer.state_dict())
    group = other.param_groups[0]
    assert (group["fused"], group["foreach"], group["lr"]) == (None, True, 0.5)
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    more = torch.optim.AdamW([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))])
    with pytest.raises(InputError, match=r"groups of \[1\] parameters, here they are \[2\]"):
        load_optimizer_state(more, optimizer.state_dict())


def test_without_torchs_newer_function_the_norm_is_the_same(monkeypatch):
    parameter = nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([parameter], lr=1.0), torch.amp.GradScaler("cpu", enabled=False)
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_and_measure(optimizer, scaler, 0.0).item() == 5.0
    monkeypatch.delattr(nn.utils, "get_total_norm", raising=False)
    assert clip_and_measure(optimizer, scaler, 0.0).item() == 5.0
    assert torch.equal(parameter.grad, torch.tensor([3.0, 4.0]))
    apply_step(optimizer, scaler, torch.tensor(1.0))
    assert torch.equal(parameter.detach(), torch.ones(2))
    apply_step(optimizer, scaler, torch.tensor(0.0))
    assert torch.equal(parameter.detach(), torch.tensor([-2.0, -3.0]))


class FocalLoss(nn.Module):
    """RetinaNet's loss is a scripted function, whose first gradients in a process are not those of later calls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-2, 2, 2000))

    def forward(self, batch):
        targets = torch.tensor([sample["value"] for sample in batch]).expand(2000)
        return {"loss": sigmoid_focal_loss_jit(self.weight, targets, alpha=0.25, gamma=2.0, reduction="sum")}


def test_the_first_steps_of_a_process_are_computed_as_later_ones():
    step = make_step()
    step.model = FocalLoss()
    gradients = []
    for _ in range(4):
        step.model.zero_grad()
        step._forward_and_backward([{"value": 1.0}], is_last=True)
        gradients.append(step.model.weight.grad.clone())
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_images_go_to_the_device_and_the_batch_stays_as_it_is():
    batch = [{"image": torch.zeros(3, 4, 4), "height": 4, "extra": torch.zeros(1)}, {"image": "a.png"}, ("own", 1)]
    sent = send_images(batch, torch.device("meta"))
    assert [entry["image"].device.type for entry in (sent[0], batch[0])] == ["meta", "cpu"]
    assert sent[0]["extra"] is batch[0]["extra"]
    assert sent[1:] == batch[1:]
    assert send_images(batch, torch.device("cpu")) is batch


def test_a_number_that_some_passes_lack_is_as_the_last_has_it():
    place, other = ("", "a"), ("", "b")
    assert average_numbers([{place: 1.0, other: 7.0}, {place: 3.0}]) == {place: 2.0}
    assert average_numbers([{place: 1.0}, {place: 3.0, other: 7.0}]) == {place: 2.0, other: 7.0}
