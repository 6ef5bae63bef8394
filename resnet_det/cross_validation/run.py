"""From one annotation file to a detector for each fold, their mean, and one report."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from resnet_det.config import flatten_cfg, merge_cfg
from resnet_det.cross_validation.folds import split_images, write_folds
from resnet_det.cross_validation.report import describe, make_lead, summarize
from resnet_det.cross_validation.summary import FoldMean, average_folds
from resnet_det.cross_validation.training import FoldResult, read_fold, train_fold
from resnet_det.data.coco.json_files import read_json
from resnet_det.errors import InputError
from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.build import find_max_detections
from resnet_det.evaluation.files import evaluate_files, hash_file
from resnet_det.evaluation.report import without_nan
from resnet_det.outputs import make_new_folder

logger = logging.getLogger(__name__)

_PLAN, _NUMBERS, _POOLED = "plan.json", "cross_validation.json", "pooled_results.json"
# Keys that may be others when the command is given again.
_FREE_KEYS = ("OUTPUT_DIR", "DATASETS.", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS")

_WITHOUT_OBJECTS = ("SemanticSegmentor", "ProposalNetwork")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The folds, the mean of each metric over them, and the analyses of all their predictions together."""

    results: list[FoldResult]
    means: dict[str, dict[str, FoldMean]]
    pooled: list[Analysis]


def cross_validate(
    config_file: str,
    annotations: Path,
    images: Path,
    output: Path,
    *,
    folds: int = 5,
    seed: int = 0,
    group_by: str = "",
    opts: Sequence[str] = (),
    num_gpus: int = 1,
) -> CrossValidation:
    """Train as many detectors as folds, each tested on its own part of the images, and write what that tells.

    ``output`` then has fold-1, fold-2, ... (OUTPUT_DIR of ordinary runs), folds/ (their annotation files),
    cross_validation.json, pooled_results.json, and report.html and evaluation.json of the pooled predictions. What is
    finished is not done again, and a training that was broken off goes on.

    Args:
        opts: KEY VALUE pairs for all folds.

    Raises:
        InputError: something cannot be used, or ``output`` holds something else.
        TrainingStoppedError: a signal has ended a training.
    """
    cfg, opts = _read_cfg(config_file, seed, opts)
    rules = {
        "crowd_as_objects": cfg.RESNET_DET.DATA.CROWD_AS_OBJECTS,
        "classes": tuple(cfg.RESNET_DET.DATA.CLASSES),
    }
    split = split_images(annotations, images, folds, seed=seed, group_by=group_by, **rules)
    asked = {
        "annotations": hash_file(annotations),
        "images": _hash_sizes(images, [image["file_name"] for image in split.content["images"]]),
        "weights": _hash_weights(cfg.MODEL.WEIGHTS),
        "folds": folds,
        "seed": seed,
        "group_by": group_by,
    }
    _keep_plan(output, {**asked, "config": _describe_cfg(cfg)})
    if split.rare_classes:
        logger.warning(
            "All objects of %s are in one image or group: no fold both learns and tests that",
            ", ".join(split.rare_classes),
        )
    made = write_folds(split, output / "folds")
    for fold in made:
        train_fold(fold, output / f"fold-{fold.number}", images, config_file, opts, num_gpus)
    results = [read_fold(fold, output / f"fold-{fold.number}") for fold in made]
    means = average(results)
    pooled = output / _POOLED
    rows = [row for result in results for row in json.loads(result.detections.read_text(encoding="utf-8"))]
    pooled.write_text(json.dumps(rows), encoding="utf-8")
    numbers = {"asked": asked, **summarize(results, means)}
    (output / _NUMBERS).write_text(json.dumps(without_nan(numbers), indent=1) + "\n", encoding="utf-8")
    analyses, _ = evaluate_files(
        annotations,
        pooled,
        images=images,
        output=output,
        lead=make_lead(results, means, grouped=bool(group_by), rare_classes=split.rare_classes),
        facts=describe(results, group_by),
        config=cfg.dump(),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
        max_detections=find_max_detections(cfg),
        overwrite=True,
        **rules,
    )
    return CrossValidation(results, means, analyses)


def _read_cfg(config_file: str, seed: int, opts: Sequence[str]) -> tuple[CfgNode, list[str]]:
    """The config, and the pairs that make it.

    Raises:
        InputError: it cannot be used, or not for folds.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("started by torchrun: start it by itself, with --num-gpus, which each fold is trained on")
    if seed < 0:
        raise InputError(f"--seed {seed}: a number from 0")
    opts = list(opts)
    if "OUTPUT_DIR" in opts[::2]:
        raise InputError("OUTPUT_DIR: --output says where the folds go")
    cfg = merge_cfg(config_file, opts)
    if cfg.SEED < 0:
        opts += ["SEED", str(seed)]
        cfg = merge_cfg(config_file, opts)
    if cfg.MODEL.META_ARCHITECTURE in _WITHOUT_OBJECTS:
        raise InputError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} finds no objects, which folds are evaluated by"
        )
    if cfg.RESNET_DET.TEST.MAX_IMAGES:
        raise InputError(
            "RESNET_DET.TEST.MAX_IMAGES: each image is to be tested once, so that none is left out: set it to 0"
        )
    if cfg.RESNET_DET.TRAIN.EARLY_STOPPING:
        raise InputError(
            "RESNET_DET.TRAIN.EARLY_STOPPING chooses weights by the very images that a fold is tested on: set it to 0"
        )
    return cfg, opts


def _hash_sizes(folder: Path, names: Sequence[str]) -> str:
    """The sha256 of the names and sizes of image files."""
    sizes = sorted((name, (folder / name).stat().st_size) for name in names)
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _hash_weights(weights: str) -> str:
    """The sha256 of a file of weights; empty for none and for those that are downloaded by their address."""
    return hash_file(Path(weights)) if weights and Path(weights).is_file() else ""


def _describe_cfg(cfg: CfgNode) -> dict[str, str]:
    return {key: str(value) for key, value in flatten_cfg(cfg) if not key.startswith(_FREE_KEYS)}


def _keep_plan(output: Path, plan: Mapping[str, Any]) -> None:
    """Note what is asked for in a new folder, or hold it to what an earlier call was asked for.

    Raises:
        InputError: the folder is of something else.
    """
    path = output / _PLAN
    if not path.is_file():
        make_new_folder(output)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
        return
    before = read_json(path)
    pairs = {key: (before.get(key), value) for key, value in plan.items() if key != "config"}
    pairs |= {key: (before["config"].get(key, value), value) for key, value in plan["config"].items()}
    changed = [f"{key} was {old} and is {new}" for key, (old, new) in pairs.items() if old != new]
    if changed:
        raise InputError(
            f"--output {output} holds a cross-validation of something else: {', '.join(changed)}. Give the same again "
            "to go on with it, or another --output"
        )


def average(results: Sequence[FoldResult]) -> dict[str, dict[str, FoldMean]]:
    """The mean over folds of each metric that any of them has, by kind of evaluation and name."""
    shares = [result.fold.test_images / result.fold.train_images for result in results]
    test_share = sum(shares) / len(shares)
    tasks = dict.fromkeys(task for result in results for task in result.metrics)
    return {task: _average_task([result.metrics.get(task, {}) for result in results], test_share) for task in tasks}


def _average_task(of_folds: Sequence[Mapping[str, float]], test_share: float) -> dict[str, FoldMean]:
    """The mean of every metric that any fold has."""
    names = dict.fromkeys(name for metrics in of_folds for name in metrics)
    return {name: average_folds([metrics.get(name, math.nan) for metrics in of_folds], test_share) for name in names}
