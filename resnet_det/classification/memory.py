"""Small images in memory: decoded once, as one array."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np

from resnet_det.classification.image_sets import ImageSet
from resnet_det.data.loading.bad_images import ABOUT_THE_IMAGE, MAX_BAD_IMAGES, SKIP_ADVICE, make_bad_image_error

logger = logging.getLogger(__name__)

_MIB = 2**20


def keep_in_memory(
    images: ImageSet, max_mib: float, *, on_bad_image: str = "raise", advice: str = SKIP_ADVICE
) -> ImageSet:
    """The same set with its pixels in memory, if all images have one size and take at most ``max_mib`` MiB.

    Args:
        on_bad_image: "raise", or "skip": in place of an image that cannot be read stands the next one, as in the
            detectors' training. Each is logged, and in ``problems`` of what is returned.
        advice: what to do about an image that cannot be read, for the message.

    Raises:
        InputError: an image cannot be read, or ``MAX_BAD_IMAGES`` in a row.
    """
    if images.pixels is not None or not max_mib:
        return images
    begin, pixels = time.perf_counter(), None
    problems: dict[int, tuple[str, str]] = {}
    in_a_row = 0
    for place, entry in enumerate(images.dicts):
        try:
            image = images.read(entry)
        except ABOUT_THE_IMAGE as error:
            in_a_row += 1
            problems[place] = (entry["file_name"], f"{type(error).__name__}: {error}")
            if on_bad_image == "raise" or in_a_row == min(MAX_BAD_IMAGES, len(images)):
                raise make_bad_image_error(*problems[place], advice) from None
            continue
        in_a_row = 0
        if pixels is None:
            if len(images) * image.nbytes > max_mib * _MIB:
                return images
            pixels = np.empty((len(images), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            return images
        pixels[place] = image
    sound = [place for place in range(len(images)) if place not in problems]
    labels = images.labels.copy()
    for place, (name, problem) in problems.items():
        other = next((later for later in sound if later > place), sound[0])
        pixels[place], labels[place] = pixels[other], labels[other]
        logger.warning("skipped %s: %s", name, problem)
    logger.info(
        "%s: %d images of %d x %d pixels are in memory (%.0f MiB, after %.1f s)%s",
        images.name, len(sound), pixels.shape[2], pixels.shape[1], pixels.nbytes / _MIB, time.perf_counter() - begin,
        f"; {len(problems)} cannot be read" if problems else "",
    )  # fmt: skip
    return dataclasses.replace(images, pixels=pixels, labels=labels, problems=problems)
