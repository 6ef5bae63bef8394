"""Data sets in YOLO's layout: images/ and labels/ with a text file for each image, and data.yaml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from resnet_det.data.image_size import read_image_size
from resnet_det.data.labels import IMAGE_SUFFIXES, LabelledImage, LabelledObject, Split
from resnet_det.errors import InputError

SPLITS = ("train", "val", "test")
BOX_NUMBERS = 4
MIN_POLYGON_NUMBERS = 6


def read_yolo(source: str | os.PathLike[str], class_names: Sequence[str] = ()) -> tuple[list[Split], list[str]]:
    """Read all splits of a YOLO data set, and everything that is wrong with them.

    Each line of a label file is ``class cx cy w h`` or, a polygon, ``class x0 y0 x1 y1 x2 y2 ...``, in shares of the
    image's sides. An image without a label file has no objects. Boxes that reach outside the image are clipped.

    Args:
        source: data.yaml, the folder it is in, or a folder with images/ and labels/; its splits are the folders in
            images/, else all images are one split, "all".
        class_names: the classes in their order, instead of those in data.yaml.

    Returns:
        The splits and the class names.

    Raises:
        InputError: it is no such data set, or the classes are not known.
    """
    source = Path(source)
    config = source / "data.yaml" if source.is_dir() else source
    if config.is_file():
        content = _read_yaml(config)
        class_names = class_names or _names_of(content, config)
        folders = _folders_of(content, config)
    else:
        if not (source / "images").is_dir():
            raise InputError(f"{source}: neither data.yaml nor a folder images is there")
        if not class_names:
            raise InputError(f"{source}: no data.yaml; say the classes, in their order: --names")
        parts = [path for path in sorted((source / "images").iterdir()) if path.is_dir()]
        folders = {path.name: path for path in parts} or {"all": source / "images"}
    return [_read_split(name, folder, class_names) for name, folder in folders.items()], list(class_names)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a yaml file: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: keys expected, such as names, train and val")
    return content


def _names_of(content: dict[str, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: names must be a list, or numbers from 0 on with their names; or say --names")
    if len(set(map(str, names))) < len(names):
        raise InputError(f"{path}: names has a class twice: {', '.join(map(str, names))}")
    return [str(name) for name in names]


def _folders_of(content: dict[str, Any], path: Path) -> dict[str, Path]:
    """The image folder of each split. Paths are relative to the key ``path``, and that to the yaml file."""
    root = path.parent / (content.get("path") or "")
    folders = {}
    for name in SPLITS:
        value = content.get(name)
        if not value:
            continue
        if not isinstance(value, str):
            raise InputError(f"{path}: {name} is {value!r}; one folder of images expected")
        folder = root / value
        if not folder.is_dir() and value.startswith("../"):  # Roboflow writes these for folders beside the file
            folder = root / value.removeprefix("../")
        if not folder.is_dir():
            raise InputError(f"{path}: {name}: no folder {root / value}")
        folders[name] = folder
    if not folders:
        raise InputError(f"{path}: none of {', '.join(SPLITS)} is there")
    return folders


def _read_split(name: str, folder: Path, class_names: Sequence[str]) -> Split:
    split = Split(name, folder)
    labels = _label_folder(folder)
    num_label_files = 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        try:
            width, height = read_image_size(path)
        except InputError as error:
            split.problems.append(str(error))
            continue
        label_path = labels / path.relative_to(folder).with_suffix(".txt")
        objects = []
        if label_path.is_file():
            num_label_files += 1
            objects = _read_labels(label_path, width, height, class_names, split.problems)
        split.images.append(LabelledImage(path.relative_to(folder).as_posix(), width, height, objects))
    if not num_label_files:
        split.problems.append(f"{labels}: no label file for any of the {len(split.images)} images in {folder}")
    stems = {Path(image.file_name).with_suffix("") for image in split.images}
    split.problems += [
        f"{path}: there is no image for it in {folder}"
        for path in sorted(labels.rglob("*.txt"))
        if path.relative_to(labels).with_suffix("") not in stems and path.name != "classes.txt"
    ]
    return split


def _label_folder(folder: Path) -> Path:
    """``folder`` with the last part that is "images" replaced by "labels"."""
    parts = list(folder.parts)
    if "images" not in parts:
        raise InputError(f"{folder}: no part of this path is 'images', so there is no telling where the labels are")
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _read_labels(
    path: Path, width: int, height: int, class_names: Sequence[str], problems: list[str]
) -> list[LabelledObject]:
    """The objects of one label file; what is wrong with its lines is added to ``problems``."""
    objects = []
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not a text file: {error}")
        return objects
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_parse_line(line.split(), width, height, class_names))
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
    return objects


def _parse_line(words: list[str], width: int, height: int, class_names: Sequence[str]) -> LabelledObject:
    if not words[0].isdecimal() or int(words[0]) >= len(class_names):
        raise InputError(f"the class is {words[0]}; it must be a number from 0 to {len(class_names) - 1}")
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        raise InputError(f"not numbers: {' '.join(words[1:])}") from None
    if outside := [number for number in numbers if not 0 <= number <= 1]:
        raise InputError(f"{outside[0]:g} is outside 0 to 1; lengths are shares of the image's sides")
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
    sides = (width, height) * (len(numbers) // 2)
    polygon = () if is_box else tuple(number * side for number, side in zip(numbers, sides, strict=True))
    box = (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)
    return LabelledObject(class_names[int(words[0])], box, polygon)
