"""Where nets are trained, once each, and measured."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from resnet_det.classification import (
    Classifier,
    ImageSet,
    build_classifier,
    build_test_loader,
    evaluate_classifier,
    make_classification_cfg,
    train_classifier,
)
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.engine.metrics import PERIOD
from resnet_det.engine.run_folder import find_numbered
from resnet_det.errors import InputError
from resnet_det.explain.data import Data
from resnet_det.explain.nets import Net, read_net
from resnet_det.explain.settings import Settings
from resnet_det.weights import find_conventions

logger = logging.getLogger(__name__)

SIZE_PX = 32
_RECORD, _SECONDS = "trained.json", "seconds.json"
_CIFAR_MEAN, _CIFAR_STD = [125.307, 122.950, 113.865], [62.993, 62.089, 66.705]
_WARM_UP_FROM, _WARM_UP = 110, 400 / 64_000  # layers, and share of the training: arXiv 1512.03385, section 4.2


class TrainingStoppedError(RuntimeError):
    """A signal has ended a training; the same command goes on with it."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained: as in arXiv 1512.03385, section 4.2, but for what is said here.

    The learning rate is 0.1 for 128 images, in proportion for others, divided by 10 after one half and three quarters.
    """

    images: int
    test_images: int
    iterations: int
    batch: int
    evaluations: int
    augment: bool = True
    weight_decay: float = 1e-4

    @classmethod
    def of(cls, settings: Settings, **changes: Any) -> Recipe:
        names = ("images", "test_images", "iterations", "batch", "evaluations")
        return cls(**{**{name: getattr(settings, name) for name in names}, **changes})


@dataclass(frozen=True)
class Point:
    """Errors in percent, and the mean cross entropy, after some iterations."""

    iteration: int
    train_error: float
    train_loss: float
    test_error: float
    test_loss: float


@dataclass(frozen=True)
class Trained:
    """A net with the weights that training, or somebody else, gave it.

    Attributes:
        curve: over its training; empty for weights from elsewhere.
        losses: (iteration, training loss), smoothed over 20 iterations.
        seconds: that its training took.
    """

    net: Net
    weights: Path
    cfg: CfgNode
    curve: tuple[Point, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.net.name

    def load(self) -> Classifier:
        """The classifier, in evaluation mode.

        Raises:
            InputError: the weights do not fit.
        """
        model = build_classifier(self.cfg)
        cfg = self.cfg.clone()
        cfg.MODEL.WEIGHTS = str(self.weights)
        load_trained_weights(cfg, model)
        return model.eval()


class Lab:
    """A folder of trained nets, and the images they are trained and measured with."""

    def __init__(
        self,
        data: Data,
        output: Path,
        *,
        device: str = "cpu",
        weights: Sequence[Path] = (),
        detectors: Path | None = None,
    ) -> None:
        """
        Args:
            weights: of nets from elsewhere.
            detectors: what tools/compare_depths.py has written.
        """
        self.data, self.folder, self.device = data, output / "nets", device
        self.weights, self.detectors = list(weights), detectors
        self.training_seconds = 0.0  # of the nets that were asked for, whenever they were trained
        self.trained_now_seconds = 0.0

    def train(self, net: Net, recipe: Recipe, seed: int) -> Trained:
        """The trained net: from the folder, if it is there; a training that was broken off goes on.

        Raises:
            InputError: it cannot be trained so.
            TrainingStoppedError: a signal has ended it.
        """
        train_set = self.data.images("train", recipe.images)
        test_set = self.data.images("test", recipe.test_images)
        if len(train_set) < len(self.data.classes):
            raise InputError(f"{len(train_set)} images of {len(self.data.classes)} classes to train on: give more")
        counts = {"train": recipe.images, "test": recipe.test_images}
        used = {f"{split} set": self.data.fingerprint(split, count) for split, count in counts.items()}
        recipe = replace(recipe, images=len(train_set), test_images=len(test_set))
        what = {"net": asdict(net), "recipe": asdict(recipe), "seed": seed, **used}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        folder = self.folder / f"{net.name}-seed{seed}-{key}"
        cfg = self._make_cfg(net, recipe, seed, folder)
        if not (folder / _RECORD).is_file():
            logger.info("Training %s, seed %d, in %s", net.name, seed, folder)
            with self._timed(folder):
                if train_classifier(cfg, resume=True, train_set=train_set, test_set=test_set) is None:
                    raise TrainingStoppedError(f"the training of {net.name} in {folder} was ended by a signal")
                curve, losses = self._evaluate_checkpoints(folder, cfg, net, recipe)
            record = {**what, "curve": curve, "losses": losses, "seconds": _read_seconds(folder)}
            temporary = folder / f"{_RECORD}.tmp"
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            temporary.replace(folder / _RECORD)
            for path in find_numbered(folder):  # the net is in model_final.pth
                path.unlink()
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        self.training_seconds += record["seconds"]
        curve = tuple(Point(**point) for point in record["curve"])
        losses = tuple((step, loss) for step, loss in record["losses"])
        return Trained(net, folder / "model_final.pth", cfg, curve, losses, record["seconds"])

    def published(self) -> list[Trained]:
        """Nets whose weights are given, by depth.

        Raises:
            InputError: a file cannot be used.
        """
        found = []
        for path in self.weights:
            net = read_net(path)
            cfg = self._make_cfg(net, Recipe(0, 0, 1, 1, 1), 0, self.folder / "unused")
            conventions = find_conventions(path)
            if conventions is None:
                raise InputError(f"--weights {path}: what pixels it was trained with is not known")
            cfg.INPUT.FORMAT = conventions.channel_order
            cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(conventions.pixel_mean), list(conventions.pixel_std)
            found.append(Trained(net, Path(path), cfg))
        return sorted(found, key=lambda trained: trained.net.depth)

    def published_or_trained(
        self, settings: Settings, seed: int, shortcuts: Sequence[str] = ("none", "pad")
    ) -> list[Trained]:
        """The nets whose weights are given; if there are none, those of each depth and shortcut, trained here.

        Raises:
            InputError, TrainingStoppedError: as :meth:`train` and :meth:`published`.
        """
        recipe = Recipe.of(settings)
        return self.published() or [
            self.train(Net(depth, shortcut), recipe, seed) for depth in settings.depths for shortcut in shortcuts
        ]

    def evaluate(self, trained: Trained, model: nn.Module, images: ImageSet) -> dict[str, float]:
        """As :func:`resnet_det.classification.evaluate_classifier`."""
        return evaluate_classifier(model, build_test_loader(trained.cfg, images))

    def pixels(self, trained: Trained, images: ImageSet, count: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The first ``count`` images as a net takes them, (N, 3, 32, 32) normalised, and labels (N,); 0: all."""
        batches = list(build_test_loader(trained.cfg, images))
        pixels = torch.cat([batch[0]["image"] for batch in batches])[: count or None].float()
        labels = torch.cat([batch[0]["label"] for batch in batches])[: count or None]
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in _normalisation(trained.cfg))
        return ((pixels - mean) / std).to(self.device), labels.to(self.device)

    def restore(self, trained: Trained, pixels: torch.Tensor) -> list[np.ndarray]:
        """What :meth:`pixels` gave, as BGR pictures (32, 32, 3) uint8."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in _normalisation(trained.cfg))
        images = (pixels.cpu() * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return [
            np.ascontiguousarray(image if trained.cfg.INPUT.FORMAT == "BGR" else image[..., ::-1]) for image in images
        ]

    def untrained(self, net: Net) -> Trained:
        """For its config: what pixels it takes."""
        return Trained(net, Path(), self._make_cfg(net, Recipe(0, 0, 1, 1, 1), 0, self.folder / "unused"))

    @contextmanager
    def _timed(self, folder: Path) -> Iterator[None]:
        """Add up the time of all calls by which a net is trained, in a file beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        before, start = _read_seconds(folder), time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.trained_now_seconds += spent
            (folder / _SECONDS).write_text(json.dumps(before + spent), encoding="utf-8")

    def _make_cfg(self, net: Net, recipe: Recipe, seed: int, folder: Path) -> CfgNode:
        steps = recipe.iterations
        period = max(1, -(-steps // recipe.evaluations))
        warm_up = max(1, round(_WARM_UP * steps)) if net.depth >= _WARM_UP_FROM else 0
        values = {
            "MODEL.DEVICE": self.device,
            "MODEL.PIXEL_MEAN": _CIFAR_MEAN,
            "MODEL.PIXEL_STD": _CIFAR_STD,
            "SEED": seed,
            "OUTPUT_DIR": str(folder),
            "SOLVER.IMS_PER_BATCH": recipe.batch,
            "SOLVER.BASE_LR": 0.1 * recipe.batch / 128,
            "SOLVER.WEIGHT_DECAY": recipe.weight_decay,
            "SOLVER.WEIGHT_DECAY_NORM": recipe.weight_decay,
            "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
            "SOLVER.STEPS": sorted({step for step in (steps // 2, steps * 3 // 4) if 0 < step < steps}),
            "SOLVER.MAX_ITER": steps,
            "SOLVER.WARMUP_ITERS": warm_up,
            "SOLVER.WARMUP_FACTOR": 0.1,
            "SOLVER.WARMUP_METHOD": "constant",
            "SOLVER.CHECKPOINT_PERIOD": period,
            "TEST.EVAL_PERIOD": 0,  # checkpoints are evaluated, on training images too
            "RESNET_DET.TRAIN.EPOCHS": 0,
            "RESNET_DET.TRAIN.KEEP_CHECKPOINTS": 0,
            "RESNET_DET.TEST.BATCH_SIZE": 250,
            "RESNET_DET.CLASSES.NAMES": list(self.data.classes),
            "RESNET_DET.CLASSIFICATION.SIZE_TRAIN": SIZE_PX,
            "RESNET_DET.CLASSIFICATION.CROP": "padded" if recipe.augment else "none",
            "RESNET_DET.CLASSIFICATION.FLIP": 0.5 if recipe.augment else 0.0,
            "RESNET_DET.CLASSIFICATION.RESIZE_TEST": SIZE_PX,
            "RESNET_DET.CLASSIFICATION.SIZE_TEST": SIZE_PX,
        }
        return make_classification_cfg("", [*net.options(), *(part for pair in values.items() for part in pair)])

    def _evaluate_checkpoints(
        self, folder: Path, cfg: CfgNode, net: Net, recipe: Recipe
    ) -> tuple[list[dict[str, Any]], list[tuple[int, float]]]:
        """Errors over training, on the test images and on as many training images without augmentation; and losses.

        A signal leaves a checkpoint and a line of metrics between the usual ones, which no other seed has.
        """
        last, period = cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD
        lines = [json.loads(line) for line in (folder / "metrics.json").read_text(encoding="utf-8").splitlines()]
        losses = {line["iteration"] + 1: line["total_loss"] for line in lines if "total_loss" in line}
        losses = {step: loss for step, loss in losses.items() if step % PERIOD == 0 or step == last}
        test_set = self.data.images("test", recipe.test_images)
        probe = self.data.images("train", min(recipe.images, recipe.test_images))
        checkpoints = {int(path.stem.removeprefix("model_")) + 1: path for path in find_numbered(folder)}
        checkpoints = {step: path for step, path in checkpoints.items() if step % period == 0}
        checkpoints[last] = folder / "model_final.pth"
        curve = []
        for iteration, path in sorted(checkpoints.items()):
            trained = Trained(net, path, cfg)
            model = trained.load()
            found, test = (self.evaluate(trained, model, images) for images in (probe, test_set))
            point = Point(iteration, found["top1_error"], found["loss"], test["top1_error"], test["loss"])
            curve.append(asdict(point))
        return curve, sorted(losses.items())


def _read_seconds(folder: Path) -> float:
    path = folder / _SECONDS
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0


def _normalisation(cfg: CfgNode) -> tuple[list[float], list[float]]:
    return cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
