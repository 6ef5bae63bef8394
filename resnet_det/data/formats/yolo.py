"""Data sets in YOLO's layouts: images and label files, and data.yaml, classes.txt or obj.names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from resnet_det.data.formats.labels import IMAGE_SUFFIXES, Classes, Split, place_images
from resnet_det.data.formats.yolo_lines import read_labels
from resnet_det.errors import InputError
from resnet_det.images.size import read_image_size

SPLITS = ("train", "val", "test")
SPLIT_KEYS = {"val": ("val", "valid", "validation")}
NAME_FILES = ("classes.txt", "obj.names")  # Label Studio's and labelImg's, darknet's
CONFIGS = ("data.yaml", "obj.data")
PREFIXES = ("../", "data/")
PAIR = 2


@dataclass
class _Source:
    """What is known before the images are looked at: for each split its images, by their folder."""

    classes: Classes
    keypoint_shape: tuple[int, int] | None
    splits: dict[str, list[Path]]  # image files
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # splits that are not there


def read_yolo(source: str | os.PathLike[str], class_names: Sequence[str] = ()) -> tuple[list[Split], Classes]:
    """Read all splits of a YOLO data set, and everything that is wrong with them.

    Each line of a label file is ``class cx cy w h``; a polygon or an oriented box, ``class x0 y0 x1 y1 x2 y2 ...``; or,
    where data.yaml has ``kpt_shape``, a box and its keypoints; all in shares of the image's sides. An image without a
    label file has no objects.

    Args:
        source: data.yaml, darknet's obj.data (CVAT's YOLO 1.1), the folder it is in, or a folder with images/ and
            labels/; its splits are the folders in images/, else all images are one split, "all".
        class_names: the classes in their order, instead of those in data.yaml, classes.txt or obj.names.

    Returns:
        The splits and the classes.

    Raises:
        InputError: it is no such data set, or the classes are not known.
    """
    source = Path(source)
    configs = [source / name for name in CONFIGS] if source.is_dir() else [source]
    config = next((path for path in configs if path.is_file()), source)
    found = _read_config(config, class_names) if config.is_file() else _read_folder(source, class_names)
    splits = [_read_split(name, images, found) for name, images in found.splits.items()]
    splits[0].notes += found.notes
    splits[0].left_out += found.left_out
    return splits, found.classes


def _read_config(path: Path, class_names: Sequence[str]) -> _Source:
    content = _read_data_file(path) if path.suffix == ".data" else _read_yaml(path)
    names = list(class_names) or _names_of(content, path)
    shape = content.get("kpt_shape")
    if shape is not None and not (isinstance(shape, list) and len(shape) == PAIR and shape[1] in (2, 3)):
        raise InputError(f"{path}: kpt_shape is {shape!r}; [number of keypoints, 2 or 3] would be right")
    keypoints = _name_keypoints(content, shape[0]) if shape else []
    notes: list[str] = []
    splits, missing = {}, []
    for name in SPLITS:
        value = next((content[key] for key in SPLIT_KEYS.get(name, (name,)) if content.get(key)), None)
        if value:
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise InputError(f"{path}: {name} is {value!r}; folders of images, or lists of them, expected")
            try:
                splits[name] = [image for entry in entries for image in _find_images(entry, name, content, path, notes)]
            except InputError as error:  # Roboflow's data.yaml names splits that a data set does not have
                missing.append(str(error))
    if missing and not splits:
        raise InputError(missing[0])
    if not splits:
        raise InputError(f"{path}: none of {', '.join(SPLITS)} is there")
    return _Source(
        Classes(names, keypoints), tuple(shape) if shape else None, splits, list(dict.fromkeys(notes)), missing
    )


def _read_folder(source: Path, class_names: Sequence[str]) -> _Source:
    folder = source / "images"
    if not folder.is_dir():
        raise InputError(f"{source}: neither {' nor '.join(CONFIGS)} nor a folder images is there")
    files = [source / name for name in NAME_FILES] + [source / "labels" / name for name in NAME_FILES]
    file = next((file for file in files if file.is_file()), None)
    names = list(class_names) or (_read_lines(file) if file else [])
    if not names:
        raise InputError(f"{source}: no data.yaml, {' or '.join(NAME_FILES)}; say the classes, in their order: --names")
    parts = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    splits = {path.name: list_images(path) for path in parts} or {"all": list_images(folder)}
    notes = [f"classes from {file}: {', '.join(names)}"] if file and not class_names else []
    return _Source(Classes(names), None, splits, notes)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a yaml file: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: keys expected, such as names, train and val")
    return content


def _read_data_file(path: Path) -> dict[str, Any]:
    """The lines key = value of darknet's file."""
    pairs = [line.partition("=") for line in _read_lines(path) if "=" in line]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _names_of(content: dict[str, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    files = [path.parent / name for name in ([names] if isinstance(names, str) else []) + list(NAME_FILES)]
    file = next((file for file in files if file.is_file()), None)
    if not isinstance(names, list) and file is not None:
        names = _read_lines(file)
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: names must be a list, or numbers from 0 on with their names; or say --names")
    if len(set(map(str, names))) < len(names):
        raise InputError(f"{path}: names has a class twice: {', '.join(map(str, names))}")
    return [str(name) for name in names]


def _name_keypoints(content: dict[str, Any], count: int) -> list[str]:
    """The names of the keypoints; where there are none, ``flip_idx`` tells which ones a mirrored image swaps."""
    named = content.get("kpt_names")
    named = next(iter(named.values()), None) if isinstance(named, dict) else named
    if isinstance(named, list) and len(named) == count:
        return list(map(str, named))
    names = [f"keypoint_{number + 1}" for number in range(count)]
    flips = content.get("flip_idx")
    if isinstance(flips, list) and sorted(map(str, flips)) == sorted(map(str, range(count))):
        for place, other in enumerate(flips):
            if place < other:
                names[place], names[other] = f"left_{place + 1}", f"right_{place + 1}"
    return names


def _read_lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _find_images(value: str, split: str, content: dict[str, Any], path: Path, notes: list[str]) -> list[Path]:
    """The images of a folder, or those that a text file lists.

    Paths are relative to the key ``path``, and that to the yaml file; where there is no such thing, to the yaml file's
    own folder, then to the working directory: ``path`` is often of another machine.
    """
    value = value.replace("\\", "/")
    told = str(content.get("path") or "").replace("\\", "/")
    roots = list(dict.fromkeys([path.parent / told, path.parent, Path.cwd()]))
    candidates = [(root, root / one) for root in roots for one in (value, *_without_prefixes(value))]
    root, target = next(((root, one) for root, one in candidates if one.exists()), (None, None))
    if target is None or not (target.is_dir() or target.suffix == ".txt"):
        raise InputError(f"{path}: {split}: no folder {roots[0] / value}, nor below {', '.join(map(str, roots[1:]))}")
    if told and root != roots[0]:
        notes.append(f"{path}: path: {told} has no {value}; that below {root} is taken")
    if target.is_dir():
        return list_images(target)
    listed = [line.replace("\\", "/") for line in _read_lines(target)]
    return [_find_listed(line, [target.parent, root, path.parent]) for line in listed]


def _find_listed(line: str, roots: Sequence[Path]) -> Path:
    """The image that a line of a list names; relative to the list, to ``path``, or to the yaml file."""
    paths = [root / one for one in (line, *_without_prefixes(line)) for root in roots]
    return next((path for path in paths if path.is_file()), paths[0])


def _without_prefixes(path: str) -> list[str]:
    """A path without what others write before it: Roboflow "../", CVAT and darknet "data/"."""
    return [path.removeprefix(prefix) for prefix in PREFIXES if path.startswith(prefix)]


def list_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _read_split(name: str, images: Sequence[Path], source: _Source) -> Split:
    split = Split(name, Path())
    found, folders, num_label_files, known = [], set(), 0, set()
    for path in images:
        label = find_label(path)
        folders.add(label.parent)
        known.add(label)
        num_label_files += label.is_file()
        try:
            size = read_image_size(path)
        except InputError as error:
            split.left_out.append(str(error))
            continue
        objects = []
        if label.is_file():
            objects = read_labels(label, size, source.classes.names, source.keypoint_shape, split)
        found.append((path, size, objects))
    place_images(split, found)
    if not num_label_files:
        where = ", ".join(map(str, sorted(folders))) or "no folder"
        split.problems.append(f"{where}: no label file for any of the {len(images)} images")
    split.notes += [
        f"{path}: there is no image for it"
        for place in sorted(folders)
        for path in sorted(place.glob("*.txt"))
        if path not in known and path.name not in (*NAME_FILES, "train.txt", "val.txt", "test.txt")
    ]
    return split


def find_label(image: Path) -> Path:
    """Where the labels of an image are: in the folder "labels" in place of the last "images" of its path, else beside
    it, as darknet has them."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")
