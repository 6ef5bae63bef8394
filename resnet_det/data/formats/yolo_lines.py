"""Lines of YOLO's label files: boxes, polygons, oriented boxes and poses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_det.data.formats.labels import LabelledObject, Split
from resnet_det.errors import InputError

BOX_NUMBERS = 4
MIN_POLYGON_NUMBERS = 6
ROUNDING = 0.01  # a share of the image's sides beyond 0 to 1 that is clipped
PIXEL_DIGITS = 5  # of a coordinate in pixels: less than shares of six digits tell


def read_labels(
    path: Path, size: tuple[int, int], class_names: Sequence[str], keypoint_shape: tuple[int, int] | None, split: Split
) -> list[LabelledObject]:
    """The objects of one label file. Lines that cannot be read are left out, and said in ``split``.

    Args:
        size: width and height of the image in pixels.
        keypoint_shape: how many keypoints each line has, and numbers for each: 2, or 3 with the visibility; None if the
            lines have boxes and polygons.
    """
    objects = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        split.problems.append(f"{path}: not a text file: {error}")
        return objects
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_parse_line(line.split(), size, class_names, keypoint_shape, split.mended))
        except InputError as error:
            split.left_out.append(f"{path}:{number}: {error}")
    return objects


def _parse_line(
    words: list[str],
    size: tuple[int, int],
    class_names: Sequence[str],
    keypoint_shape: tuple[int, int] | None,
    mended: Counter[str],
) -> LabelledObject:
    name = class_names[_read_class(words[0], len(class_names), mended)]
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        raise InputError(f"not numbers: {' '.join(words[1:])}") from None
    keypoints: tuple[float, ...] = ()
    if keypoint_shape is not None and len(numbers) > BOX_NUMBERS:
        count, width = keypoint_shape
        if len(numbers) != BOX_NUMBERS + count * width:
            raise InputError(
                f"{len(numbers)} numbers after the class; a box and {count} keypoints of {width} numbers have "
                f"{BOX_NUMBERS + count * width}"
            )
        keypoints = _read_keypoints(numbers[BOX_NUMBERS:], width, size)
        numbers = numbers[:BOX_NUMBERS]
    if outside := [number for number in numbers if not -ROUNDING <= number <= 1 + ROUNDING]:
        raise InputError(f"{outside[0]:g} is outside 0 to 1; lengths are shares of the image's sides")
    if any(not 0 <= number <= 1 for number in numbers):
        mended["lines with shares just outside 0 to 1, which are clipped"] += 1
        numbers = [min(max(number, 0.0), 1.0) for number in numbers]
    is_box = len(numbers) == BOX_NUMBERS
    if not is_box and (len(numbers) < MIN_POLYGON_NUMBERS or len(numbers) % 2):
        raise InputError(f"{len(numbers)} numbers after the class; a box has 4, a polygon an even number from 6 on")
    if is_box:
        cx, cy, w, h = numbers
        x0, y0, x1, y1 = max(cx - w / 2, 0), max(cy - h / 2, 0), min(cx + w / 2, 1), min(cy + h / 2, 1)
    else:
        x0, y0, x1, y1 = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    if x1 <= x0 or y1 <= y0:
        raise InputError("the box is empty")
    width, height = size
    sides = (width, height) * (len(numbers) // 2)
    polygons = [] if is_box else [[_to_px(number, side) for number, side in zip(numbers, sides, strict=True)]]
    left, top, right, bottom = _to_px(x0, width), _to_px(y0, height), _to_px(x1, width), _to_px(y1, height)
    box = (left, top, round(right - left, PIXEL_DIGITS), round(bottom - top, PIXEL_DIGITS))
    return LabelledObject(name, box, polygons, keypoints=keypoints)


def _to_px(share: float, side: int) -> float:
    """A share of a side in pixels, without the noise of the division that made it."""
    return round(share * side, PIXEL_DIGITS)


def _read_class(word: str, count: int, mended: Counter[str]) -> int:
    """The class as a whole number; "1.000000" is one, too."""
    if not word.isdecimal():
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if value.is_integer() and value >= 0:
            mended["lines whose class has a decimal point"] += 1
            word = str(int(value))
    if not word.isdecimal() or int(word) >= count:
        raise InputError(f"the class is {word}; it must be a number from 0 to {count - 1}")
    return int(word)


def _read_keypoints(numbers: list[float], width: int, size: tuple[int, int]) -> tuple[float, ...]:
    """COCO's [x, y, visibility, ...] in pixels. Without a visibility, (0, 0) is a keypoint that is not labelled."""
    points: list[float] = []
    for start in range(0, len(numbers), width):
        x, y = numbers[start : start + 2]
        visibility = numbers[start + 2] if width > 2 else 2.0 * (x != 0 or y != 0)
        if not all(map(math.isfinite, (x, y, visibility))):
            raise InputError("its keypoints are not finite numbers")
        is_labelled = visibility > 0
        points += [_to_px(x, size[0]) * is_labelled, _to_px(y, size[1]) * is_labelled, min(int(visibility), 2)]
    return tuple(points)
