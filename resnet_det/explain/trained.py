"""A net with the weights it has been given, and how often it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from resnet_det.classification import (
    Classifier,
    ImageSet,
    build_classifier,
    build_test_loader,
    evaluate_classifier,
)
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.explain.nets import Net


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

    def evaluate(self, model: nn.Module, images: ImageSet) -> dict[str, float]:
        """As :func:`resnet_det.classification.evaluate_classifier`, with ``model`` of :meth:`load`, or part of it."""
        return evaluate_classifier(model, build_test_loader(self.cfg, images))
