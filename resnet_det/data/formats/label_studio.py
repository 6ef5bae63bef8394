"""Label Studio's exports JSON and JSON-MIN."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.data.coco.json_files import read_json
from resnet_det.data.formats.find import Found, check_size, find_files, find_image, image_folders, leave_out, read_each
from resnet_det.data.formats.labels import IMAGE_SUFFIXES, Classes, LabelledObject, Split, place_images, take_classes
from resnet_det.data.formats.shapes import (
    encode,
    make_box,
    make_mask,
    make_outline,
    outline_box,
    outline_ellipse,
    read_numbers,
    read_points,
    turn,
)
from resnet_det.errors import InputError

_UPLOAD_PREFIX = re.compile("^[0-9a-f]{8}-")  # of files that were uploaded
RGBA = 4
HALF_OPAQUE = 128


def read_label_studio(
    source: str | os.PathLike[str], class_names: Sequence[str] = (), *, images: str | os.PathLike[str] | None = None
) -> tuple[list[Split], Classes]:
    """Read exports of Label Studio: one, or all in a folder and below it, each of which is a split.

    Rectangles (turned ones as polygons), polygons, ellipses and brushes are read; keypoints and what has no place in
    the image are counted. Of several annotations of a task the first that was not cancelled is taken.

    Args:
        class_names: the classes in their order; if not given, all that occur, by alphabet.
        images: where the images are; if not given, beside the file, or in a folder "images" near it.

    Raises:
        InputError: there are no such files.
    """
    files = find_files(Path(source), ".json", _is_export, "JSON export of Label Studio, a list of tasks")
    splits = []
    for name, file in files.items():
        split = Split(name, file.parent)
        folders = image_folders(file, Path(images) if images else None)
        place_images(split, list(_read_tasks(file, folders, split)))
        splits.append(split)
    return splits, take_classes(splits, class_names)


def _is_export(file: Path) -> bool:
    try:
        content = read_json(file)
    except InputError:
        return False
    is_list = isinstance(content, list) and bool(content)
    return is_list and all(isinstance(task, dict) and _image_of(task) is not None for task in content)


def _image_of(task: Mapping[str, Any]) -> str | None:
    """The path or address of a task's image, as far as it tells the file's name."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    for key in ("image", *data):
        value = data.get(key)
        if isinstance(value, str):
            address = urllib.parse.urlsplit(value.replace("\\", "/"))
            local = urllib.parse.parse_qs(address.query).get("d")  # of files served from a disk
            path = local[0] if local else urllib.parse.unquote(address.path)
            if Path(path).suffix.lower() in IMAGE_SUFFIXES:
                return path
    return None


def _read_tasks(file: Path, folders: Sequence[Path], split: Split) -> Iterator[Found]:
    for number, task in enumerate(read_json(file), start=1):
        where = f"{file}: task {task.get('id', number)}"
        try:
            regions = _regions_of(task, split)
        except InputError as error:
            split.left_out.append(f"{where}: {error}")
            continue
        try:
            path = _find_image(_image_of(task), folders)
            size = check_size(path)
        except InputError as error:
            leave_out(split, where, error, len(regions))
            continue
        placed = [(f"{where}: region {place}", region) for place, region in enumerate(regions, start=1)]
        yield path, size, read_each(placed, partial(_read_region, size=size, split=split), split)


def _find_image(name: str | None, folders: Sequence[Path]) -> Path:
    try:
        return find_image(name, folders)
    except InputError as error:
        plain = _UPLOAD_PREFIX.sub("", Path(name).name)
        try:
            return find_image(plain, folders)
        except InputError:
            raise error from None


def _regions_of(task: Mapping[str, Any], split: Split) -> list[dict[str, Any]]:
    """What is marked in an image: for each region all that its results say of it."""
    if not isinstance(task.get("data"), dict):  # JSON-MIN
        lists = [value for value in task.values() if isinstance(value, list)]
        return [one for listed in lists for one in listed if isinstance(one, dict) and "original_width" in one]
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise InputError("its annotations are no list of objects")
    usable = [one for one in annotations if not one.get("was_cancelled")]
    if len(annotations) > len(usable):
        split.unread["annotations that were cancelled"] += len(annotations) - len(usable)
    if len(usable) > 1:
        split.unread["further annotations of a task, of which the first counts"] += len(usable) - 1
    regions: dict[Any, dict[str, Any]] = {}
    for number, result in enumerate(usable[0].get("result") or [] if usable else []):
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            kind = result.get("type", "unknown") if isinstance(result, dict) else "unknown"
            split.unread[f"results of type {kind}, which mark no region"] += 1
            continue
        region = regions.setdefault(result.get("id", number), {"type": result.get("type", "")})
        region |= {key: value for key, value in result.items() if key.startswith(("original", "image_"))}
        region |= result["value"]
    return list(regions.values())


def _read_region(region: Mapping[str, Any], size: tuple[int, int], split: Split) -> LabelledObject | None:
    """One object; None for what is none, which is counted. Lengths are shares of the image's sides, in percent."""
    is_box = "x" in region and "height" in region
    if not is_box and not {"points", "radiusX", "rle"} & set(region):
        keypoint = "x" in region and "y" in region
        kind = region.get("type") or "unknown"
        split.unread["keypoints" if keypoint else f"results of type {kind}, which mark no region"] += 1
        return None
    name = _read_class(region)
    if region.get("image_rotation"):
        raise InputError(
            f"the image was turned by {region['image_rotation']} degrees in Label Studio; 0 would be right"
        )
    if "rle" in region:
        return make_mask(name, encode(_read_brush(region, size)))
    scale = size[0] / 100, size[1] / 100
    if "points" in region:
        points = [(x * scale[0], y * scale[1]) for x, y in read_points(region["points"])]
        return make_outline(name, [points], size, split.mended)
    x, y = (number * side for number, side in zip(read_numbers(region, ("x", "y")), scale, strict=True))
    keys = ("width", "height") if is_box else ("radiusX", "radiusY")
    width, height = (number * side for number, side in zip(read_numbers(region, keys), scale, strict=True))
    degrees = read_numbers(region, ("rotation",))[0] if region.get("rotation") else 0.0
    if not is_box:
        return make_outline(name, [outline_ellipse((x, y), (width, height), degrees)], size, split.mended)
    corners = [(x, y), (x + width, y + height)]
    if not degrees:
        return make_box(name, corners, size, split.mended)
    return make_outline(name, [turn(outline_box(corners), (x, y), degrees)], size, split.mended)


def _read_class(region: Mapping[str, Any]) -> str:
    labels = [
        label for key, value in region.items() if key.endswith("labels") and isinstance(value, list) for label in value
    ]
    labels = list(dict.fromkeys(map(str, labels)))
    if len(labels) != 1 or not labels[0].strip():
        raise InputError(f"it has several classes: {', '.join(labels)}" if labels else "it has no label")
    return labels[0].strip()


def _read_brush(region: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels (H, W) that a brush covers by half or more."""
    try:
        pixels = decode_brush(region["rle"])
    except (ValueError, TypeError, IndexError):
        raise InputError("its rle is no run-length code of Label Studio") from None
    if len(pixels) != size[0] * size[1] * RGBA:
        raise InputError(f"its rle has {len(pixels) // RGBA} pixels, but the image {size[0]} x {size[1]}")
    return pixels.reshape(size[1], size[0], RGBA)[:, :, -1] >= HALF_OPAQUE


def decode_brush(code: Sequence[int]) -> np.ndarray:
    """The RGBA values of an image, one after the other, from the run-length code of Label Studio's brushes.

    A stream of bits: 32 for the number of values, 5 for the bits of a value (less one), 4 times 4 for the bits of a
    length (less one). Then runs: 1 bit whether one value is repeated, 2 for which of the lengths, the length less one,
    and the value or values. Source: @thi.ng/rle-pack, which Label Studio uses.

    Raises:
        ValueError: it ends too early.
    """
    bits = "".join(f"{byte:08b}" for byte in bytes(code))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    if total > len(bits) << 16:
        raise ValueError(total)
    values = np.zeros(total, dtype=np.uint8)
    start = 0
    while start < total:
        is_run = read(1)
        end = start + 1 + read(length_bits[read(2)])
        if is_run:
            values[start:end] = read(value_bits)
        else:
            for index in range(start, end):
                values[index] = read(value_bits)
        start = end
    return values
