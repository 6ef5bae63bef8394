"""A run that is interrupted or split over steps is the run that was not; and what else training promises."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from training import EVERYTHING_ON, NO_SAMPLING, assert_same_run, final_state, square_images

from resnet_det.data.mapping import plain_mapper
from resnet_det.engine import Trainer, build_train_parser, train_or_evaluate
from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.hooks import BestWeights, mean_losses
from resnet_det.engine.loaders import build_validation_loss_loader
from resnet_det.engine.solver import backbone_lr_factor
from resnet_det.engine.step import TrainingFailedError
from resnet_det.errors import InputError
from resnet_det.modeling.fast_poolers import FastROIAlign


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.long), 2])
def test_a_resumed_run_is_the_run_that_was_interrupted(make_trainer, tmp_path, num_workers):
    opts = [*EVERYTHING_ON, "SOLVER.CHECKPOINT_PERIOD", 1, "DATALOADER.NUM_WORKERS", num_workers, "TEST.EVAL_PERIOD", 3]
    whole = make_trainer(*opts, out="whole")
    whole.resume_or_load(resume=False)
    whole.train()
    interrupted = make_trainer(*opts, out="parts")
    interrupted.resume_or_load(resume=False)
    interrupted.after_step = lambda: (
        Trainer.after_step(interrupted),
        interrupted.iter == 1 and interrupted.stop("test"),
    )
    interrupted.train()
    assert not multiprocessing.active_children(), "workers end with the training they read for"
    resumed = make_trainer(*opts, out="parts")
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    resumed.train()
    assert_same_run(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


@pytest.mark.parametrize(("seed", "is_kept"), [(0, True), (7, True), (-1, False)])
def test_a_seed_is_taken_as_it_is_and_none_is_random(make_trainer, seed, is_kept):
    seeds = [make_trainer("SEED", seed).seed for _ in range(2)]
    assert (seeds == [seed, seed]) is is_kept
    assert is_kept or seeds[0] != seeds[1]


def test_workers_do_not_change_the_batches(make_trainer):
    batches = []
    for num_workers in (0, 2):
        trainer = make_trainer("DATALOADER.NUM_WORKERS", num_workers)
        iterator = iter(trainer.build_train_loader(trainer.cfg, seed=3, start_step=2))
        batches.append([next(iterator) for _ in range(3)])
    for one, other in zip(*batches, strict=True):
        assert [sample["image_id"] for sample in one] == [sample["image_id"] for sample in other]
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))


# Without sampling, and with as many proposals in each image, losses are means over the images.
def test_accumulated_gradients_are_those_of_the_large_batch(make_trainer):
    gradients = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        opts = ["SOLVER.IMS_PER_BATCH", batch_size, "RESNET_DET.TRAIN.ACCUMULATE", accumulate, *square_images()]
        trainer = make_trainer(*NO_SAMPLING, *opts)
        step = trainer._trainer
        step._step_optimizer = lambda: None
        step.iter = 0
        with EventStorage():
            step.run_step()
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters()})
    for name, large in gradients[0].items():
        small = gradients[1][name]
        assert (small - large).abs().max() <= 1e-5 * max(1.0, float(large.abs().max())), name


def test_a_damaged_checkpoint_falls_back_to_the_one_before(make_trainer, tmp_path, caplog):
    first = make_trainer("SOLVER.CHECKPOINT_PERIOD", 1)
    first.train()
    for name in ("model_final.pth", "model_0000002.pth"):
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:5000])
    second = make_trainer("SOLVER.CHECKPOINT_PERIOD", 1)
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    assert all(f"{name} cannot be read" in caplog.text for name in ("model_final.pth", "model_0000002.pth"))
    for path in (tmp_path / "out").glob("model_*.pth"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of 4 checkpoints can be read"):
        make_trainer().resume_or_load(resume=True)


def test_resuming_with_another_detectron2_is_refused(make_trainer, monkeypatch):
    make_trainer().train()
    monkeypatch.setattr("detectron2.__version__", "9.9")
    with pytest.raises(InputError, match=r"made with Detectron2 0\.\d.*, here is 9.9.* or start anew from its weights"):
        make_trainer().resume_or_load(resume=True)


def test_a_full_disk_leaves_what_was_written(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device.* go on with --resume"):
        checkpointer.save("model_0000002", iteration=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_the_newest_checkpoints_are_kept(make_trainer, tmp_path):
    make_trainer("SOLVER.CHECKPOINT_PERIOD", 1, "RESNET_DET.TRAIN.KEEP_CHECKPOINTS", 2).train()
    names = sorted(path.name for path in (tmp_path / "out").glob("model_*.pth"))
    assert names == ["model_0000001.pth", "model_0000002.pth", "model_final.pth"]


class FakeTrainer:
    def __init__(self, tmp_path):
        self.checkpointer = Checkpointer(torch.nn.Linear(1, 1), str(tmp_path))
        self.evaluated_model = self.checkpointer.model
        self.iter, self.stopped = -1, ""

    def stop(self, reason):
        self.stopped = reason


@pytest.mark.parametrize(
    ("metric", "direction", "values"),
    [
        ("bbox/AP", "", [10.0, 30.0, math.nan, 20.0]),
        ("validation_total_loss", "", [3.0, 1.0, math.nan, 1.0]),
        ("bbox/error", "min", [3.0, 1.0, math.inf, 2.0]),
        ("gained_loss", "max", [1.0, 3.0, 3.0, 2.0]),
    ],
)
def test_the_best_weights_are_kept_and_training_stops_when_nothing_gets_better(tmp_path, metric, direction, values):
    trainer = FakeTrainer(tmp_path)
    best = BestWeights(metric, patience=2, direction=direction)
    for trainer.iter in range(4):
        assert not trainer.stopped
        torch.nn.init.constant_(trainer.evaluated_model.weight, trainer.iter)
        best.judge({metric: values[trainer.iter], "other": 0.0}, trainer)
    assert f"{metric} has not improved for 2 evaluations; the best is {values[1]:.3f} at iteration 1" in trainer.stopped
    weights = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert weights["model"]["weight"].item() == 1.0
    again = BestWeights(metric, patience=2)
    again.load_state_dict(best.state_dict())
    assert (again.value, again.iteration, again.num_worse) == (values[1], 1, 2)
    another = BestWeights("segm/AP")
    another.load_state_dict(best.state_dict())
    assert (another.iteration, another.num_worse) == (-1, 0)


def test_a_mistyped_metric_is_an_error_and_not_the_worst(tmp_path):
    with pytest.raises(InputError, match=r"BEST_METRIC bbox/ap is not among the results; did you mean bbox/AP\?"):
        BestWeights("bbox/ap").judge({"bbox/AP": 1.0, "segm/AP": 2.0}, FakeTrainer(tmp_path))


def test_the_average_of_weights_is_evaluated_and_saved(make_trainer, tmp_path):
    trainer = make_trainer("RESNET_DET.TRAIN.EMA_DECAY", 0.5, "SOLVER.MAX_ITER", 2)
    weights = [trainer.model.backbone.bottom_up.res5[0].conv1.weight.detach().clone()]
    trainer.after_step = lambda: (
        weights.append(trainer.model.backbone.bottom_up.res5[0].conv1.weight.detach().clone()),
        Trainer.after_step(trainer),
    )
    trainer.resume_or_load(resume=False)
    trainer.train()
    expected = weights[1] * 0.1 + weights[2] * 0.9  # the first update copies, the second takes at most a tenth
    saved = torch.load(tmp_path / "out" / "model_final_ema.pth", weights_only=True)["model"]
    torch.testing.assert_close(saved["backbone.bottom_up.res5.0.conv1.weight"], expected)
    assert trainer.evaluated_model is trainer.ema.module


def test_validation_loss_keeps_norms_and_modes(make_trainer):
    trainer = make_trainer("RESNET_DET.TEST.BATCH_SIZE", 3)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with EventStorage():
        losses = mean_losses(trainer.model.eval(), build_validation_loss_loader(trainer.cfg, "small_val"))
    assert losses["total_loss"] == pytest.approx(sum(v for name, v in losses.items() if name != "total_loss"))
    assert losses["loss_rpn_cls"] > 0
    assert not trainer.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())


def test_validation_loss_and_scaled_learning_rate_are_written(make_trainer, tmp_path, caplog):
    opts = ["RESNET_DET.TEST.VAL_LOSS", True, "RESNET_DET.TRAIN.REFERENCE_BATCH_SIZE", 16, "SOLVER.BASE_LR", 0.016]
    caplog.set_level("INFO")
    trainer = make_trainer(*opts, "RESNET_DET.TRAIN.ACCUMULATE", 2, "SOLVER.MAX_ITER", 1)
    rates = [group["initial_lr"] for group in trainer._trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.004] * len(rates))
    trainer.train()
    assert "Learning rate 0.004 for 4 images a step" in caplog.text
    assert "validation_total_loss" in (tmp_path / "out" / "metrics.json").read_text()


@pytest.mark.parametrize("schedule", ["OneCycleLR", "WarmupCosineLR", "WarmupMultiStepLR"])
def test_schedules_and_learning_rates_by_part(make_trainer, schedule):
    opts = ["RESNET_DET.TRAIN.BACKBONE_LR_FACTOR", 0.5, "RESNET_DET.TRAIN.LAYER_DECAY", 0.5]
    trainer = make_trainer(*opts, "SOLVER.LR_SCHEDULER_NAME", schedule, "RESNET_DET.TRAIN.OPTIMIZER", "SGD")
    of_parameter = {id(p): g["initial_lr"] for g in trainer._trainer.optimizer.param_groups for p in g["params"]}
    base = trainer.cfg.SOLVER.BASE_LR
    model = trainer.model
    highest = 1 / 25 if schedule == "OneCycleLR" else 1
    assert of_parameter[id(model.backbone.fpn_lateral2.weight)] == pytest.approx(base * highest)
    assert of_parameter[id(model.backbone.bottom_up.res5[0].conv1.weight)] == pytest.approx(base * 0.5 * highest)
    assert of_parameter[id(model.backbone.bottom_up.stem.conv1.weight)] == pytest.approx(base * 0.5**5 * highest)
    assert len(of_parameter) == len(list(model.parameters()))
    trainer.train()
    assert backbone_lr_factor("roi_heads.res5.0.conv1.weight", 0.1, 0.5) == 0.1


def test_clipping_limits_the_norm_of_all_gradients_together(make_trainer):
    trainer = make_trainer("RESNET_DET.TRAIN.CLIP_GRAD_NORM", 0.01)
    trainer._trainer.iter = 0
    with EventStorage() as storage:
        trainer._trainer.run_step()
        assert storage.latest()["grad_norm"][0] > 0.01
    norm = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_a_bad_image_stops_with_its_name_or_is_listed(make_trainer, small_data, tmp_path, monkeypatch):
    bad = json.loads(Path(small_data["train"][0]).read_text())["images"][0]["file_name"]

    def read(path, *args, **kwargs):
        if path == str(Path(small_data["train"][1], bad)):
            raise OSError("image file is truncated")
        return original(path, *args, **kwargs)

    original = plain_mapper.read_image
    monkeypatch.setattr(plain_mapper, "read_image", read)
    with pytest.raises(InputError, match=rf"{bad}: OSError: image file is truncated.*ON_BAD_IMAGE skip"):
        make_trainer("SOLVER.MAX_ITER", 8).train()
    make_trainer("SOLVER.MAX_ITER", 8, "RESNET_DET.DATA.ON_BAD_IMAGE", "skip").train()
    listed = json.loads((tmp_path / "out" / "skipped_images.json").read_text())
    assert [Path(name).name for name in listed] == [bad]


def test_a_failed_step_says_where_and_keeps_the_batch(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.model.backbone.bottom_up.stem.conv1.weight.data.fill_(math.nan)
    with pytest.raises(
        TrainingFailedError, match=r"at iteration 0 in process 0, on image ids .* No step was made before"
    ) as caught:
        trainer.train()
    path = tmp_path / "out" / "failed_batch_rank0_iter0.pth"
    assert str(path) in str(caught.value)
    assert len(torch.load(path, weights_only=False)) == 2


def test_a_fast_dev_run_does_everything_twice(make_args, tmp_path):
    args = build_train_parser().parse_args(["--fast-dev-run", *make_args(*EVERYTHING_ON)])
    assert set(train_or_evaluate(args)) == {"bbox", "segm"}
    folder = tmp_path / "out" / "fast_dev_run"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "results.json", "model_0000000.pth", "model_final.pth", "model_final_ema.pth"} <= names
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert any("validation_total_loss" in line for line in lines)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fast_dev_run"]


def test_workers_that_load_test_images_can_stay(make_trainer):
    kept = make_trainer("RESNET_DET.DATA.PERSISTENT_WORKERS", True, "DATALOADER.NUM_WORKERS", 1)
    name = kept.cfg.DATASETS.TEST[0]
    loader = kept.build_test_loader(kept.cfg, name)
    first, second = list(loader), list(loader)
    workers = loader._iterator._workers
    assert all(worker.is_alive() for worker in workers)
    assert [batch[0]["image_id"] for batch in first] == [batch[0]["image_id"] for batch in second]
    assert kept.build_test_loader(kept.cfg, name) is loader
    plain = make_trainer("DATALOADER.NUM_WORKERS", 1)
    assert not plain.build_test_loader(plain.cfg, name).persistent_workers


def test_deterministic_mode(make_trainer):
    try:
        make_trainer("RESNET_DET.TRAIN.DETERMINISTIC", True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_rois_are_pooled_by_rows_in_training_and_in_evaluation(make_trainer):
    trainer = make_trainer("RESNET_DET.TRAIN.EMA_DECAY", 0.5)
    for model in (trainer.checkpointer.model, trainer.evaluated_model):
        for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
            assert {type(level) for level in pooler.level_poolers} == {FastROIAlign}
