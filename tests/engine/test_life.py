"""A run's life: however it ends there is a checkpoint, and --resume does what was left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from toy import ARCHITECTURE
from training import assert_same_run, final_state

from resnet_det.engine import Trainer, build_train_parser, setup_cfg, train_or_evaluate
from resnet_det.engine.epochs import set_length_in_epochs_
from resnet_det.engine.hooks import Interrupted
from resnet_det.engine.hooks.throughput import ThroughputHook
from resnet_det.engine.run_folder import read_record
from resnet_det.engine.solver import build_lr_scheduler
from resnet_det.errors import InputError


@pytest.fixture
def make_toy(make_trainer):
    def make(*opts, out="out", resume=False):
        trainer = make_trainer(*ARCHITECTURE, "SEED", 3, *opts, out=out)
        trainer.resume_or_load(resume=resume)
        return trainer

    return make


@pytest.fixture(autouse=True)
def results(monkeypatch):
    """Lets evaluations give these, one after the other; a function is called."""
    given = []

    def test(cls, _, model):
        value = given.pop(0) if given else 1.0
        return {"bbox": {"AP": value(cls, model) if callable(value) else value}}

    monkeypatch.setattr(Trainer, "test", classmethod(test))
    return given


def names(folder):
    return {path.name for path in Path(folder).glob("model_*.pth")}


def read_results(folder):
    content = json.loads(Path(folder, "results.json").read_text())
    facts = content.pop("facts")
    assert facts["trained on"]["small_train"]["images"] == 8
    return content


def load(folder, name):
    return torch.load(Path(folder, name), weights_only=True)


def test_early_stopping_leaves_a_whole_run_with_the_results_of_the_best(make_toy, results, tmp_path):
    out = tmp_path / "out"
    opts = ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP", "RESNET_DET.TRAIN.EARLY_STOPPING", 2, "TEST.EVAL_PERIOD", 1]
    opts += ["RESNET_DET.TRAIN.EMA_DECAY", 0.5, "SOLVER.MAX_ITER", 50]
    evaluated = []

    def of_best(_, model):
        evaluated.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return 30.0

    results += [10.0, 30.0, 20.0, 25.0, of_best]
    trainer = make_toy(*opts)
    assert trainer.train() == {"bbox": {"AP": 30.0}}
    assert trainer.finished
    assert names(out) == {"model_final.pth", "model_final_ema.pth", "model_best.pth"}
    assert read_results(out) == {"bbox": {"AP": 30.0}}
    assert read_record(out)["evaluated"] == "model_best.pth" == trainer.evaluated_file.name
    best = load(out, "model_best.pth")
    assert (best["iteration"], load(out, "model_final.pth")["iteration"]) == (1, 3)
    assert all(torch.equal(tensor, best["model"][name]) for name, tensor in evaluated[0].items())
    final = load(out, "model_final_ema.pth")["model"]
    assert all(torch.equal(tensor, final[name]) for name, tensor in trainer.evaluated_model.state_dict().items())
    results += [of_best]  # resumed: nothing is left to train
    again = make_toy(*opts, resume=True)
    assert again.train() == {"bbox": {"AP": 30.0}}
    assert again._trainer.optimizer.state_dict()["state"][0]["momentum_buffer"] is not None
    results += [29.0, 28.0, 27.0, 30.0]  # with more patience it goes on
    longer = make_toy(*opts[:2], "RESNET_DET.TRAIN.EARLY_STOPPING", 5, *opts[4:], resume=True)
    longer.train()
    assert load(out, "model_final.pth")["iteration"] == 6


def test_a_failed_evaluation_is_made_up_for(make_toy, results, tmp_path):
    out = tmp_path / "out"

    def fail(*_):
        raise ZeroDivisionError("planted")

    results += [fail]
    with pytest.raises(ZeroDivisionError, match="planted"):
        make_toy("SOLVER.MAX_ITER", 3).train()
    assert names(out) == {"model_final.pth"}
    assert not (out / "results.json").exists()
    results += [7.0]
    del vars(MetadataCatalog.get("small_train"))["usage_when_loaded"]  # a new process, which reads no data to train on
    resumed = make_toy("SOLVER.MAX_ITER", 3, resume=True)
    assert resumed.start_iter == resumed.max_iter == 3
    assert resumed.train() == {"bbox": {"AP": 7.0}}
    assert read_results(out) == {"bbox": {"AP": 7.0}}
    results += [8.0]  # a finished run is evaluated again, as by Detectron2
    assert make_toy("SOLVER.MAX_ITER", 3, resume=True).train() == {"bbox": {"AP": 8.0}}


def test_a_failed_evaluation_on_the_way_is_made_up_for(make_toy, results, tmp_path):
    opts = ["TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 5]
    opts += ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP"]

    def fail(*_):
        raise ZeroDivisionError

    results += [fail]
    with pytest.raises(ZeroDivisionError):
        make_toy(*opts).train()
    results += [9.0, 3.0, 2.0]
    make_toy(*opts, resume=True).train()
    assert load(tmp_path / "out", "model_best.pth")["iteration"] == 1


@pytest.mark.parametrize(
    "best", [[], ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP", "RESNET_DET.TRAIN.EARLY_STOPPING", 1]]
)
def test_the_last_evaluation_is_one_with_augmentation_too(make_toy, results, monkeypatch, best):
    monkeypatch.setattr("resnet_det.engine.trainer.evaluate_with_augmentation", lambda *_: {"bbox_TTA": {"AP": 7.0}})
    results += [3.0, 2.0, 1.0]
    trained = make_toy("TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 3, *best).train()
    assert trained == {"bbox": {"AP": 1.0}, "bbox_TTA": {"AP": 7.0}}


def test_a_checkpoint_collects_from_all_processes_first(make_toy, monkeypatch):
    order = []
    trainer = make_toy("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    monkeypatch.setattr(trainer._trainer, "prepare_to_save", lambda: order.append("collect"))
    monkeypatch.setattr(trainer.checkpointer, "save", lambda name, **_: order.append(name))
    trainer.checkpoint_hook.save()
    assert order[0] == "collect"
    assert len(order) == 2


@pytest.mark.parametrize("when", ["in the evaluation", "before it"])
def test_sigterm_in_an_evaluation_saves_at_once(make_toy, results, tmp_path, when):
    opts = ["TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4, "RESNET_DET.TRAIN.EMA_DECAY", 0.9]
    results += [1.0, 2.0]
    make_toy(*opts, out="whole").train()

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")

    results += [stop]
    trainer = make_toy(*opts, out="parts")
    if when == "before it":
        trainer.signals.before_train = lambda: (
            type(trainer.signals).before_train(trainer.signals),
            setattr(trainer.signals, "received", True),
        )
    handler = signal.getsignal(signal.SIGTERM)
    assert trainer.train() is None
    assert trainer.is_interrupted
    assert not trainer.finished
    assert signal.getsignal(signal.SIGTERM) is handler
    assert names(tmp_path / "parts") == {"model_0000001.pth"}
    assert not (tmp_path / "parts" / "results.json").exists()
    results[:] = [1.0, 2.0]
    resumed = make_toy(*opts, out="parts", resume=True)
    assert resumed.train() == {"bbox": {"AP": 2.0}}
    assert_same_run(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 2)])
def test_a_signal_in_training_saves_after_the_iteration_and_reports_nothing(
    make_toy, results, tmp_path, number, times, capfd
):
    class Send(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                for _ in range(times):
                    os.kill(os.getpid(), number)

    results += [5.0]
    trainer = make_toy("TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 50)
    trainer.register_hooks([Send()])
    assert trainer.train() is None, "the evaluation of iteration 1 is not the run's result"
    assert capfd.readouterr().err.count(f"{signal.Signals(number).name} was received") == 1
    assert names(tmp_path / "out") == {"model_0000002.pth"}
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_signal_at_the_last_iteration_leaves_the_evaluation_for_later(make_toy, results, tmp_path):
    class Send(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_toy("SOLVER.MAX_ITER", 3)
    trainer.register_hooks([Send()])
    assert trainer.train() is None
    assert names(tmp_path / "out") == {"model_final.pth"}
    results += [4.0]
    assert make_toy("SOLVER.MAX_ITER", 3, resume=True).train() == {"bbox": {"AP": 4.0}}


def test_an_interruption_is_no_error_that_somebody_may_catch():
    assert not issubclass(Interrupted, Exception)


def test_the_checkpoint_is_there_when_the_evaluation_begins(make_toy, results, tmp_path):
    seen = []
    results += [lambda *_: seen.append(names(tmp_path / "out")) or 1.0 for _ in range(2)]
    make_toy("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 4).train()
    assert seen == [{"model_0000001.pth"}, {"model_0000001.pth", "model_final.pth"}]


def test_what_failed_first_is_what_is_raised(make_toy, caplog):
    class Fails(HookBase):
        def before_train(self):
            raise KeyError("first")

        def after_train(self):
            raise ValueError("second")

    trainer = make_toy()
    trainer.register_hooks([Fails()])
    with pytest.raises(KeyError, match="first"):
        trainer.train()
    assert "After that error, Fails failed, too" in caplog.text
    trainer = make_toy()
    trainer.register_hooks([type("Late", (HookBase,), {"after_train": Fails.after_train})()])
    with pytest.raises(ValueError, match="second"):
        trainer.train()


def test_evaluations_are_written_as_they_are_and_not_as_medians(make_toy, results, tmp_path):
    results += [10.0, 20.0, 30.0]
    make_toy("TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 3).train()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    assert lines[-1]["bbox/AP"] == 30.0
    for name in ("grad_norm", "images_per_second", "memory_mib", "total_loss", "lr"):
        assert lines[-1][name] > 0, name


def test_images_per_second_are_those_of_all_passes_of_a_step(make_toy):
    trainer = make_toy("RESNET_DET.TRAIN.ACCUMULATE", 3, "SOLVER.IMS_PER_BATCH", 2)
    (hook,) = [hook for hook in trainer._hooks if isinstance(hook, ThroughputHook)]
    assert hook.images_per_step == 6


def test_validation_leaves_training_and_its_numbers_alone(make_toy, results):
    runs = []
    for validates in (False, True):
        results[:] = [1.0] * 4
        trainer = make_toy(
            "TEST.EVAL_PERIOD", 1, "RESNET_DET.TEST.VAL_LOSS", validates, "RESNET_DET.TRAIN.ACCUMULATE", 2,
            "RESNET_DET.TRAIN.EMA_DECAY", 0.9, out=f"out{validates}",
        )  # fmt: skip
        trainer.train()
        runs.append(trainer)
    plain, validated = runs
    assert_same_run(final_state(plain.cfg.OUTPUT_DIR), final_state(validated.cfg.OUTPUT_DIR))
    assert len(validated.storage.history("toy/count").values()) == len(plain.storage.history("toy/count").values()) == 8
    assert validated.storage.latest()["validation_total_loss"][0] > 0


def test_the_best_may_be_by_validation_loss(make_toy, tmp_path):
    opts = ["RESNET_DET.TEST.VAL_LOSS", True, "RESNET_DET.TRAIN.BEST_METRIC", "validation_total_loss"]
    trainer = make_toy(*opts, "TEST.EVAL_PERIOD", 1)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    losses = trainer.storage.history("validation_total_loss").values()
    best = load(tmp_path / "out", "model_best.pth")
    assert best["value"] == pytest.approx(min(value for value, _ in losses))
    assert lines


def test_precise_norms_are_those_of_what_is_evaluated_and_the_same_after_a_resume(make_toy, tmp_path):
    opts = ["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2, "TEST.EVAL_PERIOD", 2]
    opts += ["RESNET_DET.TRAIN.EMA_DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 1]
    whole = make_toy(*opts, out="whole")
    whole.train()
    averaged, raw = whole.ema.module.norm, whole.model.norm
    assert not torch.equal(averaged.running_mean, raw.running_mean)
    assert (averaged.momentum, whole.ema.module.normalizer) == (0.1, 100)
    parts = make_toy(*opts, out="parts")
    parts.after_step = lambda: (Trainer.after_step(parts), parts.iter == 2 and parts.stop("test", interrupted=True))
    parts.train()
    make_toy(*opts, out="parts", resume=True).train()
    assert_same_run(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


@pytest.mark.parametrize("schedule", ["WarmupMultiStepLR", "WarmupCosineLR", "OneCycleLR"])
def test_a_resumed_run_has_the_schedule_that_the_config_says(make_toy, schedule):
    opts = ["SOLVER.LR_SCHEDULER_NAME", schedule, "SOLVER.STEPS", "(2, 5)", "SOLVER.WARMUP_ITERS", 1]
    make_toy(*opts, "SOLVER.MAX_ITER", 4).train()
    longer = [*opts, "SOLVER.MAX_ITER", 8, "SOLVER.BASE_LR", 0.05]
    resumed = make_toy(*longer, resume=True)
    resumed.train()
    whole = make_toy(*longer, out="whole")
    whole.train()
    rates = [[rate for rate, _ in trainer.storage.history("lr").values()] for trainer in (whole, resumed)]
    assert rates[1] == pytest.approx(rates[0][4:], rel=1e-12)
    shorter = make_toy(*opts, "SOLVER.MAX_ITER", 3, resume=True)
    assert shorter.train() == {"bbox": {"AP": 1.0}}


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.IMS_PER_BATCH", 4], r"SOLVER.IMS_PER_BATCH was 2 and is 4.* start anew from its weights"),
        (["RESNET_DET.TRAIN.ACCUMULATE", 2], r"RESNET_DET.TRAIN.ACCUMULATE was 1 and is 2"),
        (["RESNET_DET.TRAIN.OPTIMIZER", "AdamW"], r"OPTIMIZER was SGD and is AdamW"),
        (["RESNET_DET.TRAIN.EMA_DECAY", 0.9], r"moving average \(EMA_DECAY\) off, and now it is on"),
    ],
)
def test_what_cannot_change_on_the_way_is_an_error(make_toy, opts, message):
    make_toy("SOLVER.MAX_ITER", 1).train()
    with pytest.raises(InputError, match=message):
        make_toy(*opts, resume=True)


def test_a_new_run_in_a_used_folder_stops_before_anything_is_written(make_args, tmp_path):
    out = tmp_path / "out"

    def go(*flags, opts=("SOLVER.MAX_ITER", 2)):
        args = [*flags, *make_args(*ARCHITECTURE, "SEED", 3, *opts)]
        return train_or_evaluate(build_train_parser().parse_args(args))

    go()
    (out / "notes.md").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    first = read_record(out)["id"]
    with pytest.raises(InputError, match=r"--resume goes on with it, another OUTPUT_DIR keeps it, and --overwrite"):
        go()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert go("--resume") == {"bbox": {"AP": 1.0}}
    assert read_record(out)["id"] == first
    assert go("--overwrite", opts=("SOLVER.MAX_ITER", 1)) == {"bbox": {"AP": 1.0}}
    assert read_record(out)["id"] != first
    assert load(out, "model_final.pth")["iteration"] == 0
    assert load(out, "model_final.pth")["run"] == read_record(out)["id"]
    assert (out / "notes.md").read_text() == "mine"


def test_evaluation_of_a_run_takes_the_average_that_the_run_is_judged_by(make_args, results, tmp_path):
    opts = [*ARCHITECTURE, "RESNET_DET.TRAIN.EMA_DECAY", 0.9, "SEED", 3, "SOLVER.MAX_ITER", 3]
    train_or_evaluate(build_train_parser().parse_args(make_args(*opts)))
    seen = []
    results += [lambda _, model: seen.append(model.conv.weight.detach().clone()) or 1.0]
    train_or_evaluate(build_train_parser().parse_args(["--eval-only", "--resume", *make_args(*opts)]))
    assert torch.equal(seen[0], load(tmp_path / "out", "model_final_ema.pth")["model"]["conv.weight"])


@pytest.mark.parametrize(("opts", "copies"), [([], 2), (["RESNET_DET.TRAIN.EMA_DECAY", 0.9], 3)])
def test_how_large_a_checkpoint_gets_is_known_before(make_toy, opts, copies):
    trainer = make_toy(*opts)
    numbers = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert trainer._trainer.state_mib() == copies * numbers * 4 / 2**20


@pytest.mark.parametrize(("length", "first", "count"), [(3, 2, 1), (13, 5, 5)])
def test_a_trace_of_some_iterations_opens(make_toy, tmp_path, length, first, count):
    make_toy("RESNET_DET.TRAIN.PROFILE", True, "SOLVER.MAX_ITER", length).train()
    (path,) = (tmp_path / "out").glob("profile_*.json")
    assert path.name == f"profile_{first:07d}.json"
    names = [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]]
    assert names.count("aten::conv2d") == count


def test_without_the_switch_nothing_is_traced(make_toy, tmp_path):
    make_toy("SOLVER.MAX_ITER", 3).train()
    assert not list((tmp_path / "out").glob("profile_*"))


def test_the_length_may_be_said_in_epochs(make_args, tmp_path):
    opts = ["RESNET_DET.TRAIN.EPOCHS", 3, "RESNET_DET.TRAIN.ACCUMULATE", 2, "SOLVER.MAX_ITER", 600]
    opts += [
        "SOLVER.STEPS",
        "(400, 500)",
        "SOLVER.WARMUP_ITERS",
        100,
        "TEST.EVAL_PERIOD",
        200,
        "SOLVER.CHECKPOINT_PERIOD",
        0,
    ]
    args = build_train_parser().parse_args(make_args(*ARCHITECTURE, *opts))
    cfg = setup_cfg(args)  # 8 images, 4 a step
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == (6, (4, 5), 1)
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.RESNET_DET.TRAIN.EPOCHS) == (2, 0, 0)
    assert train_or_evaluate(args) == {"bbox": {"AP": 1.0}}
    assert load(tmp_path / "out", "model_final.pth")["iteration"] == 5


@pytest.mark.parametrize("images", [1, 16, 20, 40, 1000])
def test_a_length_in_epochs_of_few_images_is_a_schedule(default_cfg, images):
    cfg = default_cfg
    cfg.RESNET_DET.TRAIN.EPOCHS, cfg.SOLVER.IMS_PER_BATCH = 1, 16
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 90000, (60000, 80000)
    set_length_in_epochs_(cfg, lambda: images)
    assert -(-images // 16) == cfg.SOLVER.MAX_ITER
    assert all(step < cfg.SOLVER.MAX_ITER for step in cfg.SOLVER.STEPS)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    build_lr_scheduler(cfg, optimizer)


def test_a_run_that_was_killed_before_its_last_file_gets_it(make_toy, tmp_path):
    out = tmp_path / "out"
    make_toy("SOLVER.MAX_ITER", 3).train()
    expected = load(out, "model_final.pth")
    (out / "model_final.pth").rename(out / "model_0000002.pth")
    (out / "last_checkpoint").write_text("model_0000002.pth")
    make_toy("SOLVER.MAX_ITER", 3, resume=True).train()
    found = load(out, "model_final.pth")
    assert found["iteration"] == expected["iteration"] == 2
    assert all(torch.equal(tensor, found["model"][name]) for name, tensor in expected["model"].items())
