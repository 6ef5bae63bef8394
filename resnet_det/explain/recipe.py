"""How nets are trained: as in arXiv 1512.03385, section 4.2, but for what is said here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from resnet_det.classification import make_classification_cfg
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import Settings

SIZE_PX = 32
SCHEDULE = "OneCycleLR"
_CIFAR_MEAN, _CIFAR_STD = [125.307, 122.950, 113.865], [62.993, 62.089, 66.705]
_RATE, _RATE_IMAGES = 0.1, 128  # the highest learning rate, and the images of a step that it is for
_RISING = 0.15  # share of the training in which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum 0.9 by one cycle of the learning rate, which suits short trainings (arXiv 1708.07120).

    The rate rises from 1/25 of its highest value over the first 15 % of the training, and falls to nothing along a
    cosine. The paper's own schedule divides it by 10 after one half and three quarters of 64,000 steps, with a warm-up
    for 110 layers.
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

    @property
    def rate(self) -> float:
        """The highest learning rate: 0.1 for 128 images a step, in proportion for others."""
        return _RATE * self.batch / _RATE_IMAGES

    @property
    def words(self) -> str:
        """For a reader who is to know how nets were trained."""
        return (
            f"SGD with momentum 0.9, {self.iterations} steps of {self.batch} images, learning rate in one cycle up to "
            f"{self.rate:.3g} (rising over {100 * _RISING:.0f} % of the steps), weight decay {self.weight_decay:g}, "
            "crops out of 4 pixels of padding and flips; what an experiment changes of that stands in its rule. The "
            "paper's recipe (arXiv 1512.03385, section 4.2) has 64,000 steps of 128, a learning rate of 0.1 that is "
            "divided by 10 at 32,000 and 48,000, and CIFAR-10's own pixels; images here that were stored as JPEG have "
            "lost a little"
        )

    def make_cfg(self, net: Net, classes: Sequence[str], *, seed: int, folder: Path, device: str) -> CfgNode:
        """The config of a training of ``net`` in ``folder``."""
        values = {
            **_describe_images(classes, device),
            "SEED": seed,
            "OUTPUT_DIR": str(folder),
            "SOLVER.IMS_PER_BATCH": self.batch,
            "SOLVER.BASE_LR": self.rate,
            "SOLVER.WEIGHT_DECAY": self.weight_decay,
            "SOLVER.WEIGHT_DECAY_NORM": self.weight_decay,
            "SOLVER.LR_SCHEDULER_NAME": SCHEDULE,
            "SOLVER.MAX_ITER": self.iterations,
            "SOLVER.STEPS": [],
            "SOLVER.WARMUP_ITERS": round(_RISING * self.iterations),
            "SOLVER.CHECKPOINT_PERIOD": max(1, -(-self.iterations // self.evaluations)),
            "TEST.EVAL_PERIOD": 0,  # checkpoints are evaluated, on training images too
            "RESNET_DET.TRAIN.EPOCHS": 0,
            "RESNET_DET.TRAIN.KEEP_CHECKPOINTS": 0,
            "RESNET_DET.CLASSIFICATION.CROP": "padded" if self.augment else "none",
            "RESNET_DET.CLASSIFICATION.FLIP": 0.5 if self.augment else 0.0,
        }
        return _make_cfg(net, values)


def make_test_cfg(net: Net, classes: Sequence[str], device: str) -> CfgNode:
    """The config of a net that is not trained here: what pixels it takes."""
    return _make_cfg(net, _describe_images(classes, device))


def _describe_images(classes: Sequence[str], device: str) -> dict[str, Any]:
    return {
        "MODEL.DEVICE": device,
        "MODEL.PIXEL_MEAN": _CIFAR_MEAN,
        "MODEL.PIXEL_STD": _CIFAR_STD,
        "RESNET_DET.CLASSES.NAMES": list(classes),
        "RESNET_DET.TEST.BATCH_SIZE": 250,
        "RESNET_DET.CLASSIFICATION.SIZE_TRAIN": SIZE_PX,
        "RESNET_DET.CLASSIFICATION.RESIZE_TEST": SIZE_PX,
        "RESNET_DET.CLASSIFICATION.SIZE_TEST": SIZE_PX,
    }


def _make_cfg(net: Net, values: dict[str, Any]) -> CfgNode:
    return make_classification_cfg("", [*net.options(), *(part for pair in values.items() for part in pair)])
