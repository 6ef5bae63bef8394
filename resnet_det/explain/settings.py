"""How large an experiment is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from resnet_det.errors import InputError


@dataclass(frozen=True)
class Settings:
    """
    Attributes:
        depths: of the nets.
        images, test_images: to train on, and to test on; 0: all.
        iterations, batch: of training, and images in each.
        evaluations: of a training, from its beginning to its end.
        probes: images that go through nets once they are trained, or through new ones.
    """

    depths: tuple[int, ...]
    images: int = 5000
    test_images: int = 1000
    iterations: int = 1050
    batch: int = 32
    evaluations: int = 5
    probes: int = 500

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "depths": list(self.depths)}


# The schedule of arXiv 1512.03385, section 4.2, on all images.
FULL = Settings((20, 56, 110), 0, 0, 64_000, 128, 16, 5000)


def change_settings(
    settings: Settings,
    *,
    depths: tuple[int, ...] | None = None,
    images: int | None = None,
    test_images: int | None = None,
    iterations: int | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    probes: int | None = None,
    num_images: int = 0,
) -> Settings:
    """``settings`` with what is given in place of its own.

    Args:
        epochs: of the images that are trained on, in place of iterations.
        num_images: that there are, if ``images`` is 0.

    Raises:
        InputError: a value that cannot be.
    """
    given = {"depths": depths, "images": images, "test_images": test_images, "iterations": iterations}
    given |= {"batch": batch, "probes": probes}
    changed = replace(settings, **{key: value for key, value in given.items() if value is not None})
    if epochs is not None:
        if iterations is not None:
            raise InputError("--epochs and --iterations both say how long to train: give one of them")
        images_an_epoch = min(changed.images or num_images, num_images or changed.images)
        changed = replace(changed, iterations=math.ceil(epochs * images_an_epoch / changed.batch))
    for name in ("iterations", "batch", "probes"):
        if getattr(changed, name) < 1:
            raise InputError(f"--{name} {getattr(changed, name)}: 1 or more")
    if len(set(changed.depths)) < len(changed.depths) or list(changed.depths) != sorted(changed.depths):
        raise InputError(f"--depths {' '.join(map(str, changed.depths))}: each once, the smallest first")
    return changed
