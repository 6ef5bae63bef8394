"""The detector that predicts, and what tells it from another one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.config import CfgNode

from resnet_det import __version__
from resnet_det.deploy.runtimes import SUFFIXES, find_file
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.launch import take_gpu
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.slicing import SlicedPredictor, predict_in_slices
from resnet_det.evaluation.files import hash_file
from resnet_det.evaluation.prediction_folder import MANIFEST_NAME, read_manifest
from resnet_det.images.image_input import ImageInput
from resnet_det.weights import fetch_weights

_THREADS = "threads"  # in the description
# What a config says of training and of files; all else may change what is found.
_NOT_OF_PREDICTION = ("SOLVER", "DATASETS", "DATALOADER", "OUTPUT_DIR", "SEED", "VIS_PERIOD", "MODEL.WEIGHTS")
_NOT_OF_PREDICTION += ("RESNET_DET.TRAIN", "RESNET_DET.DATA.COCO")


class Runs(Protocol):
    """What is asked of a detector: :class:`Predictor`, :class:`ExportedPredictor`, or what wraps one of them."""

    class_names: Sequence[str]
    category_ids: Sequence[int]
    image_input: ImageInput

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """{"instances": ...} for each of ``images``, as ``image_input`` says, which go through as one batch."""


@dataclass(frozen=True)
class Described:
    """A detector, and what its results depend on, in plain values."""

    detector: Runs
    description: dict[str, Any]


def open_detector(args: argparse.Namespace, cfg: CfgNode, num_threads: int) -> Described:
    """The detector of ``--exported``, else that of ``cfg``; under torchrun on the GPU of this process.

    Args:
        num_threads: of this process, where it runs on the CPU. In how many parts a sum is made changes its last digits,
            so that they are part of the description.

    Raises:
        InputError: it is not there, cannot be used, or finds no instances.
    """
    on_cpu = bool(args.exported) or cfg.MODEL.DEVICE == "cpu"
    if on_cpu:
        torch.set_num_threads(num_threads)
    if args.exported:
        file = find_file(args.exported)
        detector: Runs = ExportedPredictor(file, threads=num_threads)
        runtime = SUFFIXES[file.suffix]
        described = {"exported": file.name, "sha256": hash_file(file), "runtime": f"{runtime} {version(runtime)}"}
        if file.suffix == ".xml":
            described["sha256 of its weights"] = hash_file(file.with_suffix(".bin"))
    else:
        if cfg.MODEL.DEVICE == "cuda":
            take_gpu(int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        detector = Predictor(cfg)
        weights = hash_file(fetch_weights(cfg.MODEL.WEIGHTS))
        described = {"sha256 of MODEL.WEIGHTS": weights, "torch": torch.__version__}
        described |= {"detectron2": version("detectron2"), "config": dict(_flatten(cfg))}
        if cfg.RESNET_DET.TEST.PREPARE.endswith("int8"):  # whose ranges are those of training images
            described["calibrated on"] = {"DATASETS.TRAIN": cfg.DATASETS.TRAIN, "files": cfg.RESNET_DET.DATA.COCO}
    detector = predict_in_slices(detector, cfg, batch_size=args.batch_size)
    if isinstance(detector, SlicedPredictor):
        described["slices"] = asdict(detector.slicing)
    detector.run([detector.image_input.make_blank(64, 64)])  # so that a model which finds no instances shows now
    return Described(detector, {"resnet_det": __version__, **({_THREADS: num_threads} if on_cpu else {}), **described})


def find_num_threads(output: Path) -> int:
    """How many threads each process has, if nobody says: as many as those had whose predictions are in ``output``, so
    that others go on with the same numbers; else what torch takes (OMP_NUM_THREADS, which torchrun sets to 1).
    """
    known = read_manifest(output)["detector"].get(_THREADS) if (output / MANIFEST_NAME).is_file() else None
    return known or torch.get_num_threads()


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sorted(node.items()):
        name = f"{prefix}{key}"
        if name in _NOT_OF_PREDICTION:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value
