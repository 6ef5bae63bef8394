"""Images to train on that cannot be read or used: which errors tell them, how they are named, and what is noted."""

from __future__ import annotations

from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from resnet_det.errors import InputError

MAX_BAD_IMAGES = 100  # in a row: then it is not the images

# What reading and using an image raises if the image is to blame. All else is somebody's bug, and keeps its traceback.
ABOUT_THE_IMAGE = (OSError, InputError, SizeMismatchError, Image.DecompressionBombError)

SKIP_ADVICE = "RESNET_DET.DATA.ON_BAD_IMAGE skip leaves such images out and lists them"

# Under these keys a sample tells the main process which images could not be used, and what was wrong.
SKIPPED = "resnet_det_skipped"


def make_bad_image_error(name: str, problem: str, advice: str) -> InputError:
    """The error for an image that cannot be used: its path, once, what is wrong with it, and what to do."""
    _, names_it, rest = problem.partition(f"{name}: ")
    return InputError(f"{name}: {rest if names_it else problem}. {advice}")


def collect_skipped(batch: list[dict]) -> list[tuple[str, str]]:
    """Take the notes on images that could not be used off the samples of ``batch``.

    Returns:
        File names with what was wrong.

    Raises:
        InputError: a sample is nothing but such a note.
    """
    skipped: list[tuple[str, str]] = []
    for sample in batch:
        failed = sample.pop("failed", False)
        notes = sample.pop(SKIPPED, [])
        if failed:
            name, problem = notes[-1] if notes else ("any image", "the mapper leaves out every one")
            raise make_bad_image_error(name, problem, f"{SKIP_ADVICE}; tools/check_dataset.py finds them before")
        skipped += notes
    return skipped
