"""How large an experiment is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
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
    iterations: int = 3000
    batch: int = 32
    evaluations: int = 5
    probes: int = 500

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "depths": list(self.depths)}

    @property
    def counts(self) -> dict[str, int]:
        """How many images of "train" and "test" are used; 0: all."""
        return {"train": self.images, "test": self.test_images}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Settings:
        """Of what :meth:`as_json` gave, with more in it or without."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})


# As many steps and images as in arXiv 1512.03385, section 4.2.
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
    for name in ("images", "test_images", "iterations", "batch", "probes"):
        value, least = getattr(changed, name), 0 if "images" in name else 1
        if value < least:
            right = "0 for all, or more" if least == 0 else "1 or more"
            raise InputError(f"--{name.replace('_', '-')} {value}: {right}")
    if epochs is not None:
        if iterations is not None:
            raise InputError("--epochs and --iterations both say how long to train: give one of them")
        if not 0 < epochs < math.inf:
            raise InputError(f"--epochs {epochs:g}: a number above 0")
        images_an_epoch = min(changed.images or num_images, num_images or changed.images)
        changed = replace(changed, iterations=math.ceil(epochs * images_an_epoch / changed.batch))
    if len(set(changed.depths)) < len(changed.depths) or list(changed.depths) != sorted(changed.depths):
        raise InputError(f"--depths {' '.join(map(str, changed.depths))}: each once, the smallest first")
    return changed
