"""Numbers to Weights & Biases, MLflow and the progress line, with stand-ins for those services."""

from __future__ import annotations

import types

import pytest
import torch
from detectron2.utils.events import EventStorage

from resnet_det.engine.hooks import ProgressHook
from resnet_det.engine.run_folder import start_run
from resnet_det.engine.writers import build_writers
from resnet_det.errors import InputError


class FakeWandb(types.ModuleType):
    def __init__(self):
        super().__init__("wandb")
        self.logged, self.finished = [], False

    def init(self, id, config, dir, resume):  # noqa: A002
        assert "SOLVER" in config["cfg"]
        assert resume == "allow"
        self.id = id
        self.dir = dir
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


class FakeMlflow(types.ModuleType):
    def __init__(self):
        super().__init__("mlflow")
        self.logged, self.texts, self.running = [], {}, False

    def start_run(self, run_id=None):
        self.running, self.asked = True, run_id
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "given by the server"))

    def end_run(self):
        self.running = False

    def log_text(self, text, name):
        self.texts[name] = text

    def log_metric(self, name, value, step):
        self.logged.append((step, name, value))


def write_two_iterations(writer):
    with EventStorage(0) as storage:
        for iteration, loss in enumerate((2.0, 1.5)):
            storage.iter = iteration
            storage.put_scalar("total_loss", loss, smoothing_hint=False)
            writer.write()
        writer.write()  # nothing new
    writer.close()


def test_mlflow_gets_names_that_it_takes(make_writer):
    mlflow = FakeMlflow()
    writer = make_writer("mlflow", mlflow)
    with EventStorage(0) as storage:
        storage.put_scalar("bbox/AP-it's a cat@0.5", 1.0, smoothing_hint=False)
        writer.write()
    assert mlflow.logged == [(0, "bbox/AP-it_s a cat_0.5", 1.0)]


@pytest.fixture
def make_writer(default_cfg, tmp_path, monkeypatch):
    def make(name, module):
        monkeypatch.setitem(__import__("sys").modules, name, module)
        default_cfg.OUTPUT_DIR, default_cfg.RESNET_DET.TRAIN.LOGGERS = str(tmp_path), [name]
        return build_writers(default_cfg, 10)[-1]

    return make


def test_weights_and_biases_gets_each_number_once(make_writer, tmp_path):
    wandb = FakeWandb()
    run_id = start_run(tmp_path)
    write_two_iterations(make_writer("wandb", wandb))
    assert wandb.logged == [(0, {"total_loss": 2.0}), (1, {"total_loss": 1.5})]
    assert wandb.dir == str(tmp_path)
    assert wandb.finished
    assert wandb.id == run_id


def test_mlflow_gets_each_number_once_and_the_config(make_writer, tmp_path):
    mlflow = FakeMlflow()
    writer = make_writer("mlflow", mlflow)
    write_two_iterations(writer)
    assert mlflow.logged[:2] == [(0, "total_loss", 2.0), (1, "total_loss", 1.5)]
    assert "SOLVER" in mlflow.texts["config.yaml"]
    assert not mlflow.running
    assert mlflow.asked is None
    write_two_iterations(make_writer("mlflow", mlflow))  # a run that is resumed
    assert mlflow.asked == "given by the server"
    start_run(tmp_path)
    write_two_iterations(make_writer("mlflow", mlflow))
    assert mlflow.asked is None, "another run"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_an_error(make_writer, name):
    with pytest.raises(InputError, match=rf"{name}.*pip install .*resnet_det\[{name}\]"):
        make_writer(name, None)  # None in sys.modules: the import fails


def test_the_progress_line_says_what_a_person_wants_to_know(capfd):
    hook = ProgressHook(images_per_step=8)
    hook.trainer = types.SimpleNamespace(max_iter=100, start_iter=10, iter=10, device=torch.device("cpu"))
    with EventStorage(10) as hook.trainer.storage:
        hook.before_train()
        hook.trainer.storage.put_scalars(total_loss=1.25, data_time=0.004)
        hook.after_step()
        hook.after_train()
    line = capfd.readouterr().err.split("\r")[-1]
    assert "11/100" in line
    for part in ("loss 1.250", "img/s", "data 4 ms", "MiB"):
        assert part in line, line
