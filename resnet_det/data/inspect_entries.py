"""The entries of a COCO annotation file: their form, ids and references, and the sound ones as arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_det.data.problems import Problem

_MAX_NUMBER = 2**62  # larger whole numbers do not fit NumPy's types


@dataclass(frozen=True)
class AnnotationTable:
    """The well-formed annotations of a file as arrays, one row each.

    Args:
        index: place in the file's list.
        boxes: (N, 4) x, y, width, height in pixels.
        image: row of ``image_sizes``; the last one, which is NaN, where the image is not listed.
        category: a number for each category id.
        crowd: whether it is a crowd region.
        image_sizes: (images + 1, 2) width, height in pixels.
    """

    index: np.ndarray
    boxes: np.ndarray
    image: np.ndarray
    category: np.ndarray
    crowd: np.ndarray
    image_sizes: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(N, 2) width and height of each annotation's image."""
        return self.image_sizes[self.image]


def is_number(value: Any) -> bool:
    """Whether it is a number, NaN and infinity included, that arrays can hold."""
    return type(value) is float or (type(value) is int and abs(value) < _MAX_NUMBER)


def is_id(value: Any) -> bool:
    return type(value) in (int, str)


def inspect_entries(content: dict[str, Any]) -> tuple[list[Problem], dict[str, list[int]]]:
    """Problems with the form, the ids and the references of all entries.

    Returns:
        The problems, and the places of the well-formed entries by section.
    """
    problems, sound = [], {}
    for section, find_fault in (
        ("images", _find_image_fault),
        ("annotations", _find_annotation_fault),
        ("categories", _find_category_fault),
    ):
        faults = [find_fault(entry) if isinstance(entry, dict) else "is not an object" for entry in content[section]]
        problems += [Problem("malformed-entry", fault, section, i) for i, fault in enumerate(faults) if fault]
        sound[section] = [index for index, fault in enumerate(faults) if not fault]
        one = {"images": "image", "annotations": "annotation", "categories": "category"}[section]
        ids = ((index, content[section][index]["id"]) for index in sound[section])
        for index, first in _find_repeated(ids):
            message = f"its id is that of {section}[{first}], too; each needs its own"
            problems.append(Problem(f"duplicate-{one}-id", message, section, index))
    names = ((index, os.path.normpath(content["images"][index]["file_name"])) for index in sound["images"])
    for index, first in _find_repeated(names):
        message = (
            f"the file is that of image {content['images'][first]['id']}, too; one entry should have all annotations"
        )
        problems.append(Problem("file-listed-twice", message, "images", index))
    problems += _inspect_references(content, sound["annotations"])
    return problems, sound


def make_table(content: dict[str, Any], sound: dict[str, list[int]]) -> AnnotationTable:
    """The annotations at the places ``sound`` as arrays."""
    annotations = [content["annotations"][index] for index in sound["annotations"]]
    images = [content["images"][index] for index in sound["images"]]
    rows = {image["id"]: row for row, image in reversed(list(enumerate(images)))}  # of an id used twice, the first
    categories: dict[Any, int] = {}
    return AnnotationTable(
        index=np.array(sound["annotations"], dtype=np.int64),
        boxes=np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4),
        image=np.array([rows.get(annotation["image_id"], len(images)) for annotation in annotations], dtype=np.int64),
        category=np.array(
            [categories.setdefault(annotation["category_id"], len(categories)) for annotation in annotations],
            dtype=np.int64,
        ),
        crowd=np.array([bool(annotation.get("iscrowd")) for annotation in annotations], dtype=bool),
        image_sizes=np.array([(image["width"], image["height"]) for image in images] + [(np.nan, np.nan)], dtype=float),
    )


def _find_image_fault(image: dict[str, Any]) -> str | None:
    if not is_id(image.get("id")):
        return f"its id is {image.get('id')!r}; a whole number would be right"
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        return f"its file_name is {image.get('file_name')!r}; the path of a file in the image folder would be right"
    for key in ("width", "height"):
        if not is_number(image.get(key)) or not 0 < image[key] < np.inf or image[key] != int(image[key]):
            return f"its {key} is {image.get(key)!r}; a number of pixels would be right"
    return None


def _find_annotation_fault(annotation: dict[str, Any]) -> str | None:
    for key in ("id", "image_id", "category_id"):
        if not is_id(annotation.get(key)):
            return f"its {key} is {annotation.get(key)!r}; a whole number would be right"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f"its bbox is {box!r}; [x, y, width, height] would be right"
    return None


def _find_category_fault(category: dict[str, Any]) -> str | None:
    if not is_id(category.get("id")):
        return f"its id is {category.get('id')!r}; a whole number would be right"
    if not isinstance(category.get("name"), str):
        return f"its name is {category.get('name')!r}; a text would be right"
    return None


def _inspect_references(content: dict[str, Any], sound: list[int]) -> list[Problem]:
    problems = []
    known = {
        # Ids of malformed entries count: the entry is the fault then, and not each of its annotations.
        section: {entry["id"] for entry in content[section] if isinstance(entry, dict) and is_id(entry.get("id"))}
        for section in ("images", "categories")
    }
    for index in sound:
        annotation = content["annotations"][index]
        if annotation["image_id"] not in known["images"]:
            message = f"no image has the id {annotation['image_id']!r}"
            problems.append(Problem("unknown-image-id", message, "annotations", index))
        if annotation["category_id"] not in known["categories"]:
            message = f"no category has the id {annotation['category_id']!r}; known are {_span(known['categories'])}"
            problems.append(Problem("unknown-category-id", message, "annotations", index))
        if not is_number(annotation.get("area")):
            message = f"its area is {annotation.get('area')!r}; pixels of the mask, or width x height, would be right"
            problems.append(Problem("missing-area", message, "annotations", index))
    return problems


def _find_repeated(items: Iterable[tuple[int, Any]]) -> list[tuple[int, int]]:
    """(place, place of the first with the same value) of each value that was there before."""
    first: dict[Any, int] = {}
    return [(index, first[value]) for index, value in items if first.setdefault(value, index) != index]


def _span(ids: set[Any]) -> str:
    listed = sorted(ids, key=lambda value: (isinstance(value, str), value))
    return ", ".join(map(str, listed)) if len(listed) <= 6 else f"{len(listed)}, from {listed[0]} to {listed[-1]}"
