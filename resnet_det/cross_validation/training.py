"""The training of one fold: an ordinary run, which goes on where it was broken off."""

from __future__ import annotations

import gc
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.logger import setup_logger

from resnet_det.cross_validation.folds import Fold
from resnet_det.engine import build_train_parser, launch, train_or_evaluate
from resnet_det.engine.run_folder import read_record
from resnet_det.evaluation.coco import IOU_TYPES

logger = logging.getLogger(__name__)

_RESULTS = "results.json"


class TrainingStoppedError(RuntimeError):
    """A signal has ended a training; the same command goes on with it."""


@dataclass(frozen=True)
class FoldResult:
    """What the detector of a fold has reached on its test images.

    Attributes:
        metrics: by kind of evaluation and name, 0 to 100; NaN where nothing can be computed.
        weights: the name of the file in ``folder`` that was evaluated.
        detections: its detections as COCO results.
    """

    fold: Fold
    folder: Path
    metrics: Mapping[str, Mapping[str, float]]
    weights: str
    detections: Path


def train_fold(fold: Fold, folder: Path, images: Path, config_file: str, opts: Sequence[str], num_gpus: int) -> None:
    """Train and evaluate a fold in ``folder``, unless that is done.

    Raises:
        InputError: the config cannot be used.
        TrainingStoppedError: a signal has ended it.
    """
    if (folder / _RESULTS).is_file():  # written when a run has come to its end
        logger.info("Fold %d is finished: %s", fold.number, folder)
        return
    logger.info("Fold %d: %d images to train on, %d to test on", fold.number, fold.train_images, fold.test_images)
    data = ["--train-data", str(fold.train), str(images), "--test-data", str(fold.test), str(images)]
    flags = ["--config-file", config_file, "--resume", "--num-gpus", str(num_gpus), *data]
    # Results that a config expects are those of its own test set.
    args = build_train_parser().parse_args([*flags, *opts, "TEST.EXPECTED_RESULTS", "[]", "OUTPUT_DIR", str(folder)])
    _release_logs()
    try:
        launch(train_or_evaluate, args)
    finally:
        _release_logs()
        setup_logger(name="resnet_det")
        gc.collect()  # the model of this fold, before the next one needs the memory
    if not (folder / _RESULTS).is_file():
        raise TrainingStoppedError(f"the training of fold {fold.number} in {folder} was ended by a signal")


def read_fold(fold: Fold, folder: Path) -> FoldResult:
    """The results of a finished fold."""
    content = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
    metrics = {
        task: {name: math.nan if value is None else value for name, value in content[task].items()}
        for task in IOU_TYPES
        if task in content
    }
    detections = folder / "inference" / "coco_instances_results.json"
    return FoldResult(fold, folder, metrics, read_record(folder)["evaluated"], detections)


def _release_logs() -> None:
    """Let no log go on into the file of the fold before. Detectron2 keeps handlers, and knows which it has made."""
    for name in ("detectron2", "fvcore", "resnet_det"):
        log = logging.getLogger(name)
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
    setup_logger.cache_clear()
