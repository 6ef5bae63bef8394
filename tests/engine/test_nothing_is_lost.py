"""Errors, signals and flags at the worst moment: what was trained stays, and files of one run stay its own."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from toy import ARCHITECTURE
from training import final_state

from resnet_det.engine import Trainer, build_train_parser, train_or_evaluate
from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.hooks.validation_loss import mean_losses
from resnet_det.engine.run_folder import clear_run, read_record, start_run
from resnet_det.errors import InputError


@pytest.fixture
def run(make_args, monkeypatch):
    """Trains or evaluates the toy by its command line; evaluations give these results, one after the other."""
    given = []

    def test(*_):
        value = given.pop(0) if given else 1.0
        return {"bbox": {"AP": value() if callable(value) else value}}

    def load(cfg, model):  # the toy has no ResNet
        model.load_state_dict(torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"])

    monkeypatch.setattr(Trainer, "test", classmethod(test))
    monkeypatch.setattr("resnet_det.engine.run.load_trained_weights", load)

    def start(*args, results=(), **options):
        flags = [str(arg) for arg in args if str(arg).startswith("--")]
        opts = [arg for arg in args if not str(arg).startswith("--")]
        given[:] = results
        return train_or_evaluate(
            build_train_parser().parse_args([*flags, *make_args(*ARCHITECTURE, "SEED", 3, *opts, **options)])
        )

    return start


def names(folder):
    return {path.name for path in Path(folder).glob("model_*.pth")}


def test_an_error_in_an_evaluation_leaves_a_checkpoint(run, tmp_path):
    def fail():
        raise MemoryError("planted")

    with pytest.raises(MemoryError, match="planted"):
        run("TEST.EVAL_PERIOD", 2, results=[fail])
    assert names(tmp_path / "out") == {"model_0000001.pth"}
    assert run("TEST.EVAL_PERIOD", 2, "--resume", results=[3.0, 4.0]) == {"bbox": {"AP": 4.0}}


def test_a_loss_that_is_not_there_to_be_best_by_leaves_a_checkpoint(run, tmp_path):
    opts = ["TEST.EVAL_PERIOD", 2, "RESNET_DET.TEST.VAL_LOSS", True]
    with pytest.raises(InputError, match=r"did you mean validation_loss_toy\?.* Resume with a different BEST_METRIC"):
        run(*opts, "RESNET_DET.TRAIN.BEST_METRIC", "validation_loss_toi")
    assert names(tmp_path / "out") == {"model_0000001.pth"}
    run(*opts, "--resume", "RESNET_DET.TRAIN.BEST_METRIC", "validation_loss_toy")
    assert "model_best.pth" in names(tmp_path / "out")


def test_a_metric_without_a_number_yet_does_not_end_the_run(run, tmp_path):
    opts = ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP", "RESNET_DET.TRAIN.EARLY_STOPPING", 2, "TEST.EVAL_PERIOD", 1]
    nothing = math.nan
    run(*opts, "SOLVER.MAX_ITER", 9, results=[nothing, nothing, nothing, 5.0, nothing, 4.0, 7.0])
    best = torch.load(tmp_path / "out" / "model_best.pth", weights_only=True)
    assert best["iteration"] == 3
    assert final_state(tmp_path / "out")["iteration"] == 5


def test_a_signal_in_precise_norms_ends_with_a_checkpoint(run, tmp_path, monkeypatch):
    opts = ["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2, "TEST.EVAL_PERIOD", 2]

    def stop(model, *_):
        for buffer in model.buffers():
            buffer.zero_()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    with monkeypatch.context() as patch:
        patch.setattr("resnet_det.engine.hooks.precise_norms.update_bn_stats", stop)
        assert run(*opts) is None
    assert names(tmp_path / "out") == {"model_0000001.pth"}
    saved = torch.load(tmp_path / "out" / "model_0000001.pth", weights_only=True)["model"]
    assert saved["norm.running_var"].abs().min() > 0, "half of the work is undone"


def test_a_bug_while_a_checkpoint_is_made_is_no_full_disk(tmp_path, monkeypatch):
    checkpointer = Checkpointer(torch.nn.Linear(1, 1), str(tmp_path))

    def fail(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        checkpointer.save("model_0000001", iteration=1)
    assert not list(tmp_path.glob("model_*"))


def test_evaluating_other_weights_leaves_a_run_alone(run, tmp_path):
    run("SOLVER.MAX_ITER", 2)
    other = tmp_path / "model_other.pth"
    other.write_bytes((tmp_path / "out" / "model_final.pth").read_bytes())
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"out holds a run, whose results .*model_other.pth would replace"):
        run("--eval-only", "MODEL.WEIGHTS", other)
    assert {path: path.read_bytes() for path in before} == before
    run("--eval-only", "MODEL.WEIGHTS", other, out="elsewhere")
    own = tmp_path / "out" / "model_final.pth"
    assert run("--eval-only", "MODEL.WEIGHTS", own, results=[6.0]) == {"bbox": {"AP": 6.0}}


def test_evaluation_alone_takes_what_a_run_was_evaluated_by(run, tmp_path):
    opts = ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP", "RESNET_DET.TRAIN.EARLY_STOPPING", 1, "TEST.EVAL_PERIOD", 1]
    run(*opts, "SOLVER.MAX_ITER", 9, results=[5.0, 4.0, 5.0])
    assert read_record(tmp_path / "out")["evaluated"] == "model_best.pth"
    run(*opts, "--eval-only", "--resume")
    assert read_record(tmp_path / "out")["evaluated"] == "model_best.pth"
    run(*opts, "--eval-only", "MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth")
    assert read_record(tmp_path / "out")["evaluated"] == "model_final.pth"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RESNET_DET.DATA.CLASSES", "['star', 'disc', 'cross', 'triangle', 'ring', 'bar']"),
        ("MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False),
        ("INPUT.FORMAT", "RGB"),
    ],
)
def test_a_run_does_not_go_on_with_what_no_tensor_shows(run, key, value, small_data):
    run("SOLVER.MAX_ITER", 2)
    if key.endswith("CLASSES"):
        listed = [entry["name"] for entry in json.loads(Path(small_data["train"][0]).read_text())["categories"]]
        value = listed[::-1]
    with pytest.raises(InputError, match=r"--resume: .* was .* and is .*A run cannot go on with that"):
        run("--resume", "SOLVER.MAX_ITER", 4, key, value)


def test_overwriting_deletes_nothing_that_the_new_run_reads(run, tmp_path, make_args):
    run("SOLVER.MAX_ITER", 2)
    before = {path.name for path in (tmp_path / "out").iterdir()}
    args = make_args(*ARCHITECTURE)
    args[args.index("--config-file") + 1] = str(tmp_path / "out" / "config.yaml")
    with pytest.raises(InputError, match=r"config.yaml is among the files that --overwrite deletes"):
        train_or_evaluate(build_train_parser().parse_args(["--overwrite", *args]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == before


def test_overwriting_leaves_files_of_similar_names(tmp_path):
    mine = ["model_0004999_keep.pth", "log.txt.mine", "profile_pictures/a.png", "inference/notes.txt", "a.tmp"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "config.yaml").write_text("of no run")
    clear_run(tmp_path)
    assert (tmp_path / "config.yaml").exists(), "there was no run"
    start_run(tmp_path)
    for name in ("model_0004999.pth", "log.txt.rank1", "profile_0000005.json", "inference/box_proposals.pkl"):
        (tmp_path / name).write_text("of the run")
    clear_run(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(mine)


def test_trying_out_does_not_resume(run):
    with pytest.raises(InputError, match="--fast-dev-run tries things out anew: give it without --resume"):
        run("--fast-dev-run", "--resume")


class _Random(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, batch):
        return {"loss": self.drop(self.weight * torch.ones(64)).square().mean() * len(batch)}


def test_nothing_is_dropped_from_a_validation_loss():
    model = _Random()
    assert mean_losses(model, [[{}, {}]])["loss"] == 2.0
    assert model.drop.training
