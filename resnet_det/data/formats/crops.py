"""The objects of COCO annotation files as images by class, for tools/train_classifier.py to pretrain a backbone on."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_det.data.formats.export import ExportedSet, clip_box, name_images
from resnet_det.data.mapping.fast_image import read_bgr
from resnet_det.errors import InputError

MAX_NAMED = 10  # images that cannot be used, in a message


def write_crops(
    sets: Sequence[ExportedSet], folder: Path, *, context: float = 0.2, min_size: int = 16, strict: bool = False
) -> list[Counter[str]]:
    """Write ``folder/<split>/<class>/<image>-<number>.png`` for each object, as torchvision's ImageFolder has images.

    Crowd regions and objects that are too small are left out, and counted in ``counts`` of the set. An image that
    cannot be read, or has another size than its entry says, is left out with its objects, and named there.

    Args:
        folder: new and empty.
        context: what is cut out beside a box, on each side, in widths and heights of the box, as far as the image goes.
        min_size: pixels of the shorter side of a box, clipped to its image, at least.
        strict: stop at an image that cannot be used.

    Returns:
        Of each set, how many objects of each class were written; classes in their order.

    Raises:
        InputError: an argument is out of range, two classes would have one folder, nothing is left of a set, or with
            ``strict`` an image cannot be used.
    """
    if not 0 <= context < math.inf:
        raise InputError(f"--context is {context:g}; a number of at least 0 would be right")
    if min_size < 1:
        raise InputError(f"--min-size is {min_size}; at least 1 would be right")
    folders = _name_folders(sets[0].data.class_names)
    return [_write_set(one, folder / one.name, folders, context, min_size, strict=strict) for one in sets]


def _name_folders(class_names: Sequence[str]) -> list[str]:
    """A folder for each class: its name without what no folder's name may have; hidden folders are no classes."""
    names = [re.sub(r"[/\\\0]|^\.", "_", name).strip() or "_" for name in class_names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        which = [known for known, name in zip(class_names, names, strict=True) if name == twice[0]]
        raise InputError(f"classes {', '.join(map(repr, which))} would share the folder {twice[0]}: rename one of them")
    return names


def _write_set(
    one: ExportedSet, folder: Path, folders: Sequence[str], context: float, min_size: int, *, strict: bool
) -> Counter[str]:
    data, written = one.data, Counter(dict.fromkeys(one.data.class_names, 0))
    name_images(one, flat=False, taken=set())
    bad: list[str] = []
    for place, rows in one.objects_of():
        chosen = [row for row in rows if _is_wanted(one, row, min_size)]
        if not chosen:
            continue
        try:
            pixels = _read_image(one, place)
        except InputError as error:
            if strict:
                raise
            bad.append(str(error))
            one.counts["objects of these images: left out"] += len(chosen)
            continue
        stem = Path(one.file_names[place]).with_suffix("")
        for number, row in enumerate(chosen):
            path = folder / folders[data.category[row]] / stem.with_name(f"{stem.name}-{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            left, top, right, bottom = _grow(data.box[row], context, pixels.shape)
            Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])).save(path)
            written[data.class_names[data.category[row]]] += 1
    if bad:
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        told = f"images that cannot be used: {'; '.join(bad[:MAX_NAMED])}{more}"
        one.counts = Counter({told: len(bad)}) + one.counts
    if not written.total():
        raise InputError(f"{data.path}: no object is left of it; {', '.join(_tell(one)) or 'it has none'}")
    return written


def _is_wanted(one: ExportedSet, row: int, min_size: int) -> bool:
    if one.data.crowd[row]:
        one.counts["crowd regions: left out"] += 1
        return False
    left, top, right, bottom = clip_box(one, row)
    if min(right - left, bottom - top) < min_size:
        one.counts[f"objects with a side of less than {min_size} pixels: left out"] += 1
        return False
    return True


def _tell(one: ExportedSet) -> list[str]:
    return [f"{count} {what}" for what, count in one.counts.items()]


def _read_image(one: ExportedSet, place: int) -> np.ndarray:
    """The pixels (H, W, 3) in RGB order.

    Raises:
        InputError: they cannot be read, or are not as many as the annotation file says.
    """
    path = one.image_folder / one.data.images[place]["file_name"]
    pixels = read_bgr(path)[..., ::-1]
    height, width = one.data.sizes[place].tolist()
    if pixels.shape[:2] != (height, width):
        raise InputError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, and {width}x{height} in the annotation file"
        )
    return pixels


def _grow(box: np.ndarray, context: float, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box (x, y, width, height) with what is around it, in whole pixels."""
    x, y, width, height = box.tolist()
    left, top = math.floor(x - context * width), math.floor(y - context * height)
    right, bottom = math.ceil(x + (1 + context) * width), math.ceil(y + (1 + context) * height)
    return max(left, 0), max(top, 0), min(right, shape[1]), min(bottom, shape[0])
