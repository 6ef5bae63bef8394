"""The training step: precision, optimizers, what a checkpoint holds."""

from __future__ import annotations

import itertools
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from resnet_det.engine import Trainer, build_train_parser, setup_cfg
from resnet_det.engine.model_setup import compile_backbone_
from resnet_det.engine.precision import choose_amp_dtype, measure_bfloat16_speed_up
from resnet_det.engine.step import TrainStep
from resnet_det.errors import InputError


@pytest.fixture
def make_cfg(make_args):
    def make(*opts):
        small = ["SOLVER.MAX_ITER", 2, "INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", 128]
        return setup_cfg(build_train_parser().parse_args(["--resume", *make_args(*small, *opts)]))

    return make


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("SGD", 0.01), ("AdamW", 0.0001)])
def test_training_moves_every_parameter_and_writes_results(make_cfg, optimizer, learning_rate):
    trainer = Trainer(
        make_cfg("RESNET_DET.TRAIN.OPTIMIZER", optimizer, "SOLVER.WARMUP_ITERS", 0, "SOLVER.BASE_LR", learning_rate)
    )
    assert optimizer in type(trainer._trainer.optimizer).__name__
    before = parameters(trainer.model)
    results = trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert set(results) == {"bbox", "segm"}
    written = json.loads(Path(trainer.cfg.OUTPUT_DIR, "results.json").read_text())
    assert written["bbox"].keys() == results["bbox"].keys() >= {"AP", "AP50", "AP-disc"}
    facts = written.pop("facts")
    assert [list(facts[what]) for what in ("trained on", "evaluated on")] == [["small_train"], ["small_val"]]
    assert all(value is None or 0 <= value <= 100 for task in written.values() for value in task.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_on_the_cpu_gives_nearly_the_same_losses(make_cfg, dtype):
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        cfg = make_cfg("SOLVER.AMP.ENABLED", enabled, "RESNET_DET.TRAIN.AMP_DTYPE", dtype, "SEED", 1)
        trainer = Trainer(cfg)
        step = trainer._trainer
        assert step.amp_dtype == (getattr(torch, dtype) if enabled else None)
        assert step.grad_scaler.is_enabled() == (enabled and dtype == "float16")
        torch.manual_seed(0)
        batch = next(iter(trainer.build_train_loader(cfg, seed=1)))
        seen = []
        hook = step.model.backbone.bottom_up.res2.register_forward_hook(lambda *a, seen=seen: seen.append(a[2].dtype))
        with EventStorage(), torch.autocast("cpu", step.amp_dtype, enabled=step.amp_dtype is not None):
            torch.manual_seed(0)
            result = step.model(batch)
        hook.remove()
        assert seen[0] == (getattr(torch, dtype) if enabled else torch.float32)
        losses.append({key: value.item() for key, value in result.items()})
    for key in ("loss_rpn_cls", "loss_cls", "loss_mask"):
        assert losses[1][key] == pytest.approx(losses[0][key], rel=0.1), key


def test_a_resumed_run_has_the_optimizer_of_the_interrupted_one(make_cfg):
    first = Trainer(make_cfg("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1))
    first.train()
    second = Trainer(make_cfg("SOLVER.MAX_ITER", 3))
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    for (name, theirs), ours in zip(parameters(first.model).items(), parameters(second.model).values(), strict=True):
        assert torch.equal(theirs, ours), name
    want, got = (trainer._trainer.optimizer.state_dict()["state"] for trainer in (first, second))
    assert want.keys() == got.keys() != set()
    for index, state in want.items():
        assert torch.equal(state["exp_avg"], got[index]["exp_avg"])
    second.train()
    assert second.iter == 3


def test_a_model_in_evaluation_mode_cannot_be_trained(make_cfg):
    step = Trainer(make_cfg())._trainer
    step.model.eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        step.run_step()
    assert isinstance(step, TrainStep)


@pytest.mark.parametrize(("speed_up", "expected"), [(2.0, torch.bfloat16), (0.8, None)])
def test_auto_precision_is_what_is_faster(make_cfg, monkeypatch, speed_up, expected):
    monkeypatch.setattr("resnet_det.engine.precision.measure_bfloat16_speed_up", lambda _: speed_up)
    cfg = make_cfg("SOLVER.AMP.ENABLED", True, "RESNET_DET.TRAIN.AMP_DTYPE", "auto")
    assert choose_amp_dtype(cfg) is expected


def test_the_speed_up_is_measured():
    assert 0 < measure_bfloat16_speed_up(torch.device("cpu"), repeats=1) < 100


@pytest.mark.parametrize(("half_s", "expected", "num_pairs"), [(20.0, 0.05, 1), (5.0, 0.2, 4), (0.25, 4.0, 4)])
def test_the_speed_up_is_a_median_unless_one_pair_is_enough(monkeypatch, half_s, expected, num_pairs):
    ends = itertools.accumulate(itertools.cycle([0.0, 1.0, 0.0, half_s]))
    taken, randn = [], torch.randn
    shapes = itertools.cycle([(2, 4, 6, 6), (4, 4, 3, 3)])  # small: without bfloat16 it would take seconds
    monkeypatch.setattr("torch.randn", lambda *_, **kwargs: randn(*next(shapes), **kwargs))
    monkeypatch.setattr("time.perf_counter", lambda: taken.append(1) or next(ends))
    measure_bfloat16_speed_up.cache_clear()
    try:
        for _ in range(2):  # the second time it is known
            assert measure_bfloat16_speed_up(torch.device("cpu"), repeats=3) == pytest.approx(expected)
    finally:
        measure_bfloat16_speed_up.cache_clear()
    assert len(taken) == 4 * num_pairs


@pytest.mark.parametrize(("present", "works"), [({"g++"}, True), ({"clang++"}, True), (set(), False)])
def test_compiling_on_the_cpu_needs_a_compiler(monkeypatch, present, works):
    monkeypatch.setattr("shutil.which", lambda name: name if name in present else None)
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(1, 1)
    with nullcontext() if works else pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        compile_backbone_(model)
