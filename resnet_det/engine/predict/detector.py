"""The detector that predicts, and what tells it from another one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.config import CfgNode

from resnet_det import __version__
from resnet_det.deploy.runtimes import SUFFIXES, find_file
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.launch import take_gpu
from resnet_det.engine.predictor import Predictor
from resnet_det.evaluation.files import hash_file
from resnet_det.weights import fetch_weights

# What a config says of training and of files; all else may change what is found.
_NOT_OF_PREDICTION = ("SOLVER", "DATASETS", "DATALOADER", "OUTPUT_DIR", "SEED", "VIS_PERIOD", "MODEL.WEIGHTS")
_NOT_OF_PREDICTION += ("RESNET_DET.TRAIN", "RESNET_DET.DATA.COCO")


class Runs(Protocol):
    """What is asked of a detector: :class:`Predictor`, :class:`ExportedPredictor`, or what wraps one of them."""

    class_names: Sequence[str]
    category_ids: Sequence[int]

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """{"instances": ...} for each of ``images``, (H, W, 3) uint8 in BGR order, which go through as one batch."""


@dataclass(frozen=True)
class Described:
    """A detector, and what its results depend on, in plain values."""

    detector: Runs
    description: dict[str, Any]


def open_detector(args: argparse.Namespace, cfg: CfgNode) -> Described:
    """The detector of ``--exported``, else that of ``cfg``; under torchrun on the GPU of this process.

    Raises:
        InputError: it is not there, cannot be used, or finds no instances.
    """
    local_rank, local_size = (int(os.environ.get(name, default)) for name, default in _LOCAL)
    if args.exported:
        file = find_file(args.exported)
        threads = 0 if local_size == 1 else max(1, (os.cpu_count() or 1) // local_size)
        detector: Runs = ExportedPredictor(file, threads=threads)
        runtime = SUFFIXES[file.suffix]
        described = {"exported": file.name, "sha256": hash_file(file), "runtime": f"{runtime} {version(runtime)}"}
        if file.suffix == ".xml":
            described["sha256 of its weights"] = hash_file(file.with_suffix(".bin"))
    else:
        if cfg.MODEL.DEVICE == "cuda":
            take_gpu(local_rank, local_size)
        detector = Predictor(cfg)
        weights = hash_file(fetch_weights(cfg.MODEL.WEIGHTS))
        described = {"sha256 of MODEL.WEIGHTS": weights, "torch": torch.__version__, "config": dict(_flatten(cfg))}
    detector.run([np.zeros((64, 64, 3), np.uint8)])  # so that a model which finds no instances shows now
    return Described(detector, {"resnet_det": __version__, **described})


_LOCAL = (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sorted(node.items()):
        name = f"{prefix}{key}"
        if name in _NOT_OF_PREDICTION:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value
