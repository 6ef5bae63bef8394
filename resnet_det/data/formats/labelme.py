"""labelme's JSON files, one for each image."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_det.data.coco.json_files import read_json
from resnet_det.data.formats.find import Found, check_size, find_image, find_image_of, leave_out, read_each
from resnet_det.data.formats.labels import Classes, LabelledObject, Split, place_images, take_classes
from resnet_det.data.formats.shapes import (
    encode,
    make_box,
    make_mask,
    make_outline,
    outline_box,
    outline_ellipse,
    read_points,
)
from resnet_det.errors import InputError

NOT_OBJECTS = ("__ignore__", "_background_")  # labels of labelme's own converters
AREAS = ("polygon", "rectangle", "circle", "mask")
LINES = ("point", "points", "line", "linestrip")


def read_labelme(
    source: str | os.PathLike[str], class_names: Sequence[str] = (), *, images: str | os.PathLike[str] | None = None
) -> tuple[list[Split], Classes]:
    """Read the JSON files of labelme in a folder and below it; sub-folders that have all of them are splits.

    Polygons, rectangles, circles and masks are read. Shapes of one label and ``group_id`` are one object, as in
    labelme's own converters. Points and lines have no area: they are counted.

    Args:
        class_names: the classes in their order; if not given, all that occur, by alphabet.
        images: where images are that do not lie beside their JSON files.

    Raises:
        InputError: there are no such files.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    folder = source if source.is_dir() else source.parent
    files = sorted(folder.rglob("*.json")) if source.is_dir() else [source]
    splits: dict[str, Split] = {}
    found: dict[str, list[Found]] = {}
    first_parts = {file.relative_to(folder).parts[0] for file in files}
    by_folder = len(first_parts) > 1 and not any(file.parent == folder for file in files)
    for file in files:
        name = file.relative_to(folder).parts[0] if by_folder else "all"
        split = splits.setdefault(name, Split(name, folder))
        try:
            content = read_json(file)
        except InputError as error:
            split.left_out.append(str(error))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            split.notes.append(f"{file}: no list of shapes, so not of labelme; passed over")
            continue
        one = _read_file(file, content, Path(images) if images else None, split)
        if one is not None:
            found.setdefault(name, []).append(one)
    if not found and not any(split.left_out for split in splits.values()):
        raise InputError(f"{source}: no JSON file of labelme, with a list of shapes")
    splits = {name: split for name, split in splits.items() if name in found or split.left_out}
    for name, split in splits.items():
        place_images(split, found.get(name, ()))
    return list(splits.values()), take_classes(list(splits.values()), class_names)


def _read_file(file: Path, content: dict[str, Any], images: Path | None, split: Split) -> Found | None:
    """The image, its size and its objects; None if it is left out."""
    folders = [images] if images else [file.parent]
    try:
        path = _find_image(file, content, folders)
        size = check_size(path, (content.get("imageWidth"), content.get("imageHeight")))
    except InputError as error:
        leave_out(split, str(file), error, len(content["shapes"]))
        return None
    groups = _group(content["shapes"])
    placed = [(f"{file}: shape {' and '.join(map(str, numbers))}", shapes) for numbers, shapes in groups]
    return path, size, read_each(placed, partial(_read_object, size=size, split=split), split)


def _find_image(file: Path, content: dict[str, Any], folders: Sequence[Path]) -> Path:
    try:
        return find_image(content.get("imagePath"), folders)
    except InputError as error:
        beside = find_image_of(file.stem, folders)
        if beside is not None:
            return beside
        inside = "; it is only inside the JSON file (imageData): labelme's labelme_export_json writes it out"
        raise InputError(f"{error}{inside if content.get('imageData') else ''}") from None


def _group(shapes: Sequence[Any]) -> list[tuple[list[int], list[Any]]]:
    """The shapes of each object, and their numbers from 1."""
    groups: dict[Any, tuple[list[int], list[Any]]] = {}
    for number, shape in enumerate(shapes, start=1):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        is_area = group is not None and (shape.get("shape_type") or "polygon") in AREAS
        numbers, members = groups.setdefault((str(shape.get("label")), str(group)) if is_area else number, ([], []))
        numbers.append(number)
        members.append(shape)
    return list(groups.values())


def _read_object(shapes: Sequence[Any], size: tuple[int, int], split: Split) -> LabelledObject | None:
    """One object; None for what is none, which is counted."""
    if not all(isinstance(shape, dict) for shape in shapes):
        raise InputError(f"it is {shapes[0]!r:.40}; an object with label, points and shape_type would be right")
    kinds = [shape.get("shape_type") or "polygon" for shape in shapes]
    label = shapes[0].get("label")
    name = label.strip() if isinstance(label, str) else ""
    if name in NOT_OBJECTS:
        split.unread[f"shapes with the label {name}"] += len(shapes)
        return None
    if kinds[0] in LINES:
        split.unread[f"shapes of type {kinds[0]}, which have no area"] += 1
        return None
    if not name:
        raise InputError("it has no label")
    if unknown := next((kind for kind in kinds if kind not in AREAS), None):
        raise InputError(f"its shape_type is {unknown!r:.40}; {', '.join(AREAS)} are read")
    if kinds == ["rectangle"]:
        return make_box(name, _rectangle(shapes[0]), size, split.mended)
    if "mask" not in kinds:
        return make_outline(name, [_outline(shape) for shape in shapes], size, split.mended)
    pixels = np.zeros(size[::-1], dtype=bool)
    for shape, kind in zip(shapes, kinds, strict=True):
        if kind != "mask":
            raise InputError("masks and other shapes in one group; masks alone would be right")
        _paint_mask(shape, pixels)
    return make_mask(name, encode(pixels))


def _rectangle(shape: dict[str, Any]) -> list[tuple[float, float]]:
    """Two opposite corners. Newer releases of labelme write all four."""
    points = read_points(shape.get("points"))
    if len(points) not in (2, 4):
        raise InputError(f"a rectangle of {len(points)} points; two opposite corners would be right")
    return [tuple(map(min, zip(*points, strict=True))), tuple(map(max, zip(*points, strict=True)))]


def _outline(shape: dict[str, Any]) -> list[tuple[float, float]]:
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle":
        return outline_box(_rectangle(shape))
    if kind == "polygon":
        return read_points(shape.get("points"))
    (x0, y0), (x1, y1) = read_points(shape.get("points"), 2)  # the centre, and a point on the circle
    radius = float(np.hypot(x1 - x0, y1 - y0))
    return outline_ellipse((x0, y0), (radius, radius))


def _paint_mask(shape: dict[str, Any], pixels: np.ndarray) -> None:
    """Paint a mask, a picture of its box in base64, into ``pixels`` (H, W)."""
    (left, top), _ = read_points(shape.get("points"), 2)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or ""))) as picture:
            mask = np.asarray(picture).astype(bool)
    except (OSError, ValueError, TypeError, binascii.Error) as error:
        raise InputError(f"its mask is no picture: {error}") from None
    y, x = round(top), round(left)
    if mask.ndim != 2 or min(x, y) < 0 or y + mask.shape[0] > pixels.shape[0] or x + mask.shape[1] > pixels.shape[1]:
        raise InputError(f"its mask of shape {mask.shape} does not fit into the image at {x}, {y}")
    pixels[y : y + mask.shape[0], x : x + mask.shape[1]] |= mask
