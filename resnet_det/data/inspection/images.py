"""Image files that are missing, damaged, not as the annotations say, or (nearly) the same in two sets."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import tqdm
from PIL import ExifTags, Image, UnidentifiedImageError

from resnet_det.data.coco import Problem
from resnet_det.errors import InputError
from resnet_det.images.image_input import PICTURE, ImageInput
from resnet_det.images.pages import split_page
from resnet_det.images.pillow import TRANSPOSED, allow_pixels, check_pixels, describe_kinds
from resnet_det.images.reader import needs_library, read_stored
from resnet_det.images.stored import make_array

HASH_SIDE = 16  # 256 bits: unrelated photographs differ in 90 or more, resized or recompressed ones in at most 10
NEAR_BITS = 48
_LIMIT_ADVICE = "RESNET_DET.DATA.MAX_IMAGE_PIXELS and --max-image-pixels set the limit"
_BLOCK = 256  # images compared with all others at a time


@dataclass(frozen=True)
class ImageFindings:
    """What looking at one image file gave.

    Args:
        faults: (kind, message) of each problem.
        digest: a hash of the file's bytes.
        bits: (256,) the perceptual hash, if it was asked for and the image can be read.
    """

    faults: list[tuple[str, str]]
    digest: bytes = b""
    bits: np.ndarray | None = field(default=None, compare=False)


def inspect_images(
    entries: Sequence[dict[str, Any]], folder: Path, *, workers: int | None, with_hashes: bool, max_pixels: int = 0
) -> list[ImageFindings]:
    """Read all image files of well-formed ``entries``, in parallel: Pillow decodes outside Python's lock.

    Args:
        entries: entries of an annotation file's images.
        workers: threads; None for one per CPU.
        with_hashes: compute perceptual hashes.
        max_pixels: the most of an image that are read; 0: Pillow's limit.
    """
    with warnings.catch_warnings(), allow_pixels(max_pixels), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and large images, which are fine
        found = pool.map(
            lambda entry: inspect_image(entry, folder, with_hash=with_hashes, max_pixels=max_pixels), entries
        )
        progress = tqdm.tqdm(
            found, total=len(entries), desc=f"images of {folder.name}", unit="image", leave=False, disable=None
        )
        return list(progress)


def inspect_image(entry: dict[str, Any], folder: Path, *, with_hash: bool, max_pixels: int = 0) -> ImageFindings:
    """Read one image file to its end and compare it with its entry."""
    path = folder / entry["file_name"]
    file, page = split_page(path)
    try:
        if page is not None or needs_library(file):
            return _inspect_values(entry, path, with_hash=with_hash, max_pixels=max_pixels)
        content = path.read_bytes()
    except OSError as error:
        return ImageFindings([("missing-image", f"cannot read {path}: {error.strerror or error}")])
    digest = hashlib.sha1(content, usedforsecurity=False).digest()
    try:
        image = Image.open(io.BytesIO(content))
        check_pixels(image, str(path), max_pixels)
    except (InputError, Image.DecompressionBombError) as error:
        return ImageFindings([("huge-image", f"{error}; {_LIMIT_ADVICE}")], digest)
    except Exception as error:  # Pillow raises whatever its decoders meet in broken files
        reason = f"{len(content):,} bytes, {type(error).__name__}" if content else "it is empty"
        return ImageFindings([("unreadable-image", f"not a readable image: {reason}")], digest)
    try:
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        bits = imagehash.phash(image, HASH_SIDE).hash.reshape(-1) if with_hash else None
    except Exception as error:
        return ImageFindings([("truncated-image", f"{len(content):,} bytes of {image.format}: {error}")], digest)
    faults = [*_compare_size(image.size, (entry["width"], entry["height"]), orientation), *_inspect_mode(image)]
    return ImageFindings(faults, digest, bits)


def _inspect_values(entry: dict[str, Any], path: Path, *, with_hash: bool, max_pixels: int) -> ImageFindings:
    """The same of a page of a stack, or of a file that Pillow does not read. The digest is that of its values."""
    try:
        stored = read_stored(path, max_pixels=max_pixels)
    except (InputError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        if "MAX_IMAGE_PIXELS" in reason:
            return ImageFindings([("huge-image", f"{reason}; {_LIMIT_ADVICE}")])
        return ImageFindings([("unreadable-image", reason)])
    height, width, count = stored.values.shape
    digest = hashlib.sha1(np.ascontiguousarray(stored.values), usedforsecurity=False)
    digest.update(repr(stored.values.shape).encode())
    faults = _compare_size((width, height), (entry["width"], entry["height"]), 1)
    if count not in (1, 3) and not stored.has_opacity:
        faults.append(("many-channels", f"{count} channels"))
    bits = None
    if with_hash:
        shown = ImageInput(PICTURE, window="minmax")
        bits = imagehash.phash(Image.fromarray(make_array(stored, shown, str(path))), HASH_SIDE).hash.reshape(-1)
    return ImageFindings(faults, digest.digest(), bits)


def compare_sets(
    name: str,
    earlier: Sequence[ImageFindings],
    later: Sequence[ImageFindings],
    earlier_names: Sequence[str],
    places: Sequence[int],
) -> list[Problem]:
    """Images of one set that are, exactly or nearly, in an earlier one.

    Args:
        name: what the earlier set is called.
        earlier_names: its file names.
        places: of the later set's images in its annotation file.
    """
    problems = []
    digests = {findings.digest: file_name for findings, file_name in zip(earlier, earlier_names, strict=True)}
    fresh = []
    for row, findings in enumerate(later):
        if findings.digest and findings.digest in digests:
            message = f"the same file as {digests[findings.digest]} of {name}"
            problems.append(Problem("identical-images", message, "images", places[row]))
        elif findings.bits is not None:
            fresh.append(row)
    hashed = [row for row, findings in enumerate(earlier) if findings.bits is not None]
    if not fresh or not hashed:
        return problems
    # Bits as -1 and 1: the product of two hashes is their length less twice the bits that differ.
    others = np.stack([earlier[row].bits for row in hashed]).astype(np.float32) * 2 - 1
    for start in range(0, len(fresh), _BLOCK):
        block = fresh[start : start + _BLOCK]
        signs = np.stack([later[row].bits for row in block]).astype(np.float32) * 2 - 1
        differing = (HASH_SIDE**2 - signs @ others.T) / 2
        nearest = differing.argmin(1)
        for row, column, bits in zip(block, nearest, differing.min(1), strict=True):
            if bits <= NEAR_BITS:
                message = (
                    f"nearly {earlier_names[hashed[column]]} of {name}: {bits:.0f} of {HASH_SIDE**2} bits of their "
                    "perceptual hashes differ"
                )
                problems.append(Problem("near-duplicate-images", message, "images", places[row]))
    return problems


def _compare_size(stored: tuple[int, int], told: tuple[int, int], orientation: int) -> list[tuple[str, str]]:
    """Compare width and height, where readers may turn the image by its EXIF orientation (1: upright, to 8)."""
    upright = stored[::-1] if orientation in TRANSPOSED else stored
    sizes = f"the file is {upright[0]}x{upright[1]}, the annotation file says {told[0]:g}x{told[1]:g}"
    if upright != told and stored != told:
        return [("wrong-size", sizes)]
    if upright != told:
        return [("exif-size", f"turned upright by its EXIF orientation {orientation}, {sizes}")]
    if orientation in range(2, 9):
        return [("exif-rotation", f"EXIF orientation {orientation}; pixels stored upright would be right")]
    return []


def _inspect_mode(image: Image.Image) -> list[tuple[str, str]]:
    right = "8-bit RGB would be right"
    told = {
        "cmyk-image": f"its pixels are CMYK; {right}",
        "16-bit-image": f"its pixels are of Pillow's mode {image.mode}; {right}",
        "animated-image": f"{getattr(image, 'n_frames', 1)} pictures; one would be right",
    }
    found = [(kind, told[kind]) for kind in describe_kinds(image) if kind in told]
    if "16-bit-image" in dict(found) and (lowest := np.asarray(image).min()) < 0:
        found = [(kind, text) for kind, text in found if kind != "16-bit-image"]
        found.append(("signed-image", f"values from {lowest:g} on"))
    if image.mode in ("1", "L", "LA"):
        found.append(("grey-image", "fine if the other images are grey, too"))
    return found
