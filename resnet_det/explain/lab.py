"""Where nets are trained, once each, and measured."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from resnet_det.classification import ImageSet, build_test_loader, train_classifier
from resnet_det.engine.failures import TrainingFailedError
from resnet_det.engine.metrics import PERIOD
from resnet_det.engine.run_folder import find_numbered
from resnet_det.errors import InputError
from resnet_det.explain.data import Data
from resnet_det.explain.nets import Net
from resnet_det.explain.published import read_published
from resnet_det.explain.recipe import SCHEDULE, Recipe, make_test_cfg
from resnet_det.explain.settings import Settings
from resnet_det.explain.trained import Point, Trained

logger = logging.getLogger(__name__)

_RECORD, _SECONDS, _DIVERGED = "trained.json", "seconds.json", "diverged.json"


class TrainingStoppedError(RuntimeError):
    """A signal has ended a training; the same command goes on with it."""


class DivergedError(RuntimeError):
    """The loss of a training, or its gradients, are no longer finite: with this recipe the net cannot be trained."""


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
            DivergedError: it diverges, now or when that was tried before.
            TrainingStoppedError: a signal has ended it.
        """
        train_set = self.data.images("train", recipe.images)
        test_set = self.data.images("test", recipe.test_images)
        if len(train_set) < len(self.data.classes):
            raise InputError(
                f"--images {recipe.images}: {len(self.data.classes)} classes need as many images or more to train on"
            )
        counts = {"train": recipe.images, "test": recipe.test_images}
        used = {f"{split} set": self.data.fingerprint(split, count) for split, count in counts.items()}
        recipe = replace(recipe, images=len(train_set), test_images=len(test_set))
        what = {"net": asdict(net), "recipe": asdict(recipe), "schedule": SCHEDULE, "seed": seed, **used}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        folder = self.folder / f"{net.name}-seed{seed}-{key}"
        cfg = recipe.make_cfg(net, self.data.classes, seed=seed, folder=folder, device=self.device)
        if not (folder / _RECORD).is_file():
            logger.info("Training %s, seed %d, in %s", net.name, seed, folder)
            with self._timed(folder):
                self._train(cfg, f"{net.name}, seed {seed},", folder, train_set, test_set)
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

    def probe(self, recipe: Recipe) -> ImageSet:
        """The training images on which training errors are measured: as many as there are test images, or all."""
        sets = (self.data.images("train", recipe.images), self.data.images("test", recipe.test_images))
        return self.data.images("train", min(map(len, sets)))

    def published_or_trained(
        self, settings: Settings, seed: int, shortcuts: Sequence[str] = ("none", "pad")
    ) -> list[Trained]:
        """The nets whose weights are given; if there are none, those of each depth and shortcut, trained here.

        Raises:
            InputError, DivergedError, TrainingStoppedError: as :meth:`train` and
                :func:`resnet_det.explain.published.read_published`.
        """
        recipe = Recipe.of(settings)
        return read_published(self.weights, self.data, self.device) or [
            self.train(Net(depth, shortcut), recipe, seed) for depth in settings.depths for shortcut in shortcuts
        ]

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
        return Trained(net, Path(), make_test_cfg(net, self.data.classes, self.device))

    def _train(self, cfg: CfgNode, name: str, folder: Path, train_set: ImageSet, test_set: ImageSet) -> None:
        """Train, unless that has diverged before; then it would again."""
        told = folder / _DIVERGED
        if not told.is_file():
            try:
                if train_classifier(cfg, resume=True, train_set=train_set, test_set=test_set) is None:
                    raise TrainingStoppedError(f"the training of {name} in {folder} was ended by a signal")
                return
            except TrainingFailedError as error:
                logger.warning("%s", error)
                place = re.search(r"at iteration (\d+)", str(error))
                told.write_text(json.dumps(int(place[1]) if place else None), encoding="utf-8")
        where = json.loads(told.read_text(encoding="utf-8"))
        raise DivergedError(
            f"the training of {name} diverged: its loss or its gradients were not finite"
            + ("" if where is None else f" at iteration {where}")
        )

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
        probe = self.probe(recipe)
        checkpoints = {int(path.stem.removeprefix("model_")) + 1: path for path in find_numbered(folder)}
        checkpoints = {step: path for step, path in checkpoints.items() if step % period == 0}
        checkpoints[last] = folder / "model_final.pth"
        curve = []
        for iteration, path in sorted(checkpoints.items()):
            trained = Trained(net, path, cfg)
            model = trained.load()
            found, test = (trained.evaluate(model, images) for images in (probe, test_set))
            point = Point(iteration, found["top1_error"], found["loss"], test["top1_error"], test["loss"])
            curve.append(asdict(point))
        return curve, sorted(losses.items())


def _read_seconds(folder: Path) -> float:
    path = folder / _SECONDS
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0


def _normalisation(cfg: CfgNode) -> tuple[list[float], list[float]]:
    return cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
