"""Small images in memory: decoded once, as one array."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np

from resnet_det.classification.image_sets import ImageSet
from resnet_det.data.loading.loader import ABOUT_THE_IMAGE, MAX_BAD_IMAGES
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

_MIB = 2**20
ADVICE = "RESNET_DET.DATA.ON_BAD_IMAGE skip leaves such images out of training, and lists them"


def keep_in_memory(images: ImageSet, max_mib: float, *, on_bad_image: str = "raise") -> ImageSet:
    """The same set with its pixels in memory, if all images have one size and take at most ``max_mib`` MiB.

    Args:
        on_bad_image: "raise", or "skip": in place of an image that cannot be read stands the next one.

    Raises:
        InputError: an image cannot be read.
    """
    if images.pixels is not None or not max_mib:
        return images
    begin, pixels = time.perf_counter(), None
    problems: dict[int, tuple[str, str]] = {}
    for place, entry in enumerate(images.dicts):
        try:
            image = images.read(entry)
        except ABOUT_THE_IMAGE as error:
            if on_bad_image == "raise" or len(problems) == MAX_BAD_IMAGES:
                raise InputError(f"{error}. {ADVICE}") from None
            problems[place] = (entry["file_name"], f"{type(error).__name__}: {error}")
            continue
        if pixels is None:
            if len(images) * image.nbytes > max_mib * _MIB:
                return images
            pixels = np.empty((len(images), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            return images
        pixels[place] = image
    if pixels is None:
        raise InputError(f"{images.name}: no image can be read, such as {next(iter(problems.values()))}")
    sound = [place for place in range(len(images)) if place not in problems]
    labels = images.labels.copy()
    for place in problems:
        other = next((later for later in sound if later > place), sound[0])
        pixels[place], labels[place] = pixels[other], labels[other]
    logger.info(
        "%s: %d images of %d x %d pixels are in memory (%.0f MiB, after %.1f s)",
        images.name, len(images), pixels.shape[2], pixels.shape[1], pixels.nbytes / _MIB, time.perf_counter() - begin,
    )  # fmt: skip
    return dataclasses.replace(images, pixels=pixels, labels=labels, problems=problems)
