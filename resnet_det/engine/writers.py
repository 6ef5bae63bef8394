"""Where numbers go while training: the log, metrics.json, TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from types import ModuleType

from detectron2.config import CfgNode
from detectron2.engine.defaults import default_writers
from detectron2.utils.events import EventWriter, get_event_storage

from resnet_det.engine.run_folder import read_record, write_record
from resnet_det.errors import InputError

LOGGER_CHOICES = ("wandb", "mlflow")


class WandbWriter(EventWriter):
    """Numbers to Weights & Biases; the run is configured by its own environment variables (WANDB_PROJECT, ...).

    It begins with the first numbers, under the id of our run: a run that is resumed goes on there, too.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.wandb = _import("wandb")
        self.cfg, self.run, self.last = cfg, None, -1

    def write(self) -> None:
        if self.run is None:
            self.run = self.wandb.init(
                id=read_record(self.cfg.OUTPUT_DIR).get("id"),
                config={"cfg": self.cfg.dump()},
                dir=self.cfg.OUTPUT_DIR,
                resume="allow",
            )
        by_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint().items():
            if iteration > self.last:
                by_iteration.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(by_iteration.items()):
            self.run.log(values, step=iteration)
            self.last = iteration

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()


class MlflowWriter(EventWriter):
    """Numbers to MLflow; the server is set by its own environment variables (MLFLOW_TRACKING_URI, ...).

    It begins with the first numbers. MLflow names its run itself; the name is kept with ours, and a run that is resumed
    goes on there, too.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.mlflow = _import("mlflow")
        self.cfg, self.is_open, self.last = cfg, False, -1

    def _open(self) -> None:
        record = read_record(self.cfg.OUTPUT_DIR)
        run = self.mlflow.start_run(run_id=record.get("mlflow"))
        self.is_open = True
        if "mlflow" not in record:
            write_record(self.cfg.OUTPUT_DIR, {**record, "mlflow": run.info.run_id})
        self.mlflow.log_text(self.cfg.dump(), "config.yaml")

    def write(self) -> None:
        if not self.is_open:
            self._open()
        newest = self.last
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint().items():
            if iteration > self.last:
                self.mlflow.log_metric(re.sub(r"[^\w\-. /]", "_", name), value, step=iteration)  # others are refused
                newest = max(newest, iteration)
        self.last = newest

    def close(self) -> None:
        if self.is_open:
            self.mlflow.end_run()


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """Detectron2's writers, and those that RESNET_DET.TRAIN.LOGGERS names.

    On a terminal, where a progress line shows the numbers, Detectron2's lines go to the log file alone.

    Raises:
        InputError: the package of a logger is not installed.
    """
    if shows_progress():
        for handler in logging.getLogger("detectron2").handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(lambda record: record.name != "detectron2.utils.events")
    known = {"wandb": WandbWriter, "mlflow": MlflowWriter}
    return [*default_writers(cfg.OUTPUT_DIR, max_iter), *(known[name](cfg) for name in cfg.RESNET_DET.TRAIN.LOGGERS)]


def shows_progress() -> bool:
    """Whether a person looks on."""
    return sys.stderr.isatty()


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"RESNET_DET.TRAIN.LOGGERS has {name!r}: pip install 'resnet_det[{name}]'") from None
