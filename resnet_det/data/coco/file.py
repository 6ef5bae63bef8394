"""COCO annotation files as they are, read fast and in little memory.

Most of a file are the corners of polygons. They stay the bytes that they are in the file until somebody asks for
them, so that never all of them are there as Python numbers, which take several times the time and memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from resnet_det.data.coco.json_files import paused_garbage_collection, read_json
from resnet_det.errors import InputError

SECTIONS = ("images", "annotations", "categories")


class Annotation(msgspec.Struct, gc=False):
    """The fields of an annotation that training needs; masks and keypoints are not parsed yet."""

    id: Any = UNSET
    image_id: Any = UNSET
    category_id: Any = UNSET
    bbox: Any = UNSET
    iscrowd: Any = UNSET
    ignore: Any = UNSET
    segmentation: msgspec.Raw = UNSET
    keypoints: msgspec.Raw = UNSET

    def __contains__(self, key: str) -> bool:
        return getattr(self, key, UNSET) is not UNSET

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


class AnnotationWithArea(Annotation, gc=False):
    """The fields that evaluation needs."""

    area: Any = UNSET


class _File(msgspec.Struct):
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[Annotation] | msgspec.UnsetType = UNSET


class _FileWithAreas(msgspec.Struct):
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[AnnotationWithArea] | msgspec.UnsetType = UNSET


@dataclass
class Content:
    """The three lists of a file.

    Args:
        annotations: of :class:`Annotation`, or what else the file has in their place.
        has_annotations: whether the file has such a list at all; that of a test set may have none.
    """

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    has_annotations: bool


def read_content(annotation_file: str | os.PathLike[str], *, areas: bool = True) -> Content:
    """Read an annotation file.

    Args:
        areas: read the areas, too.

    Raises:
        InputError: it is missing, is not JSON, or has no lists of images and categories.
    """
    path = find_annotation_file(annotation_file)
    try:
        with paused_garbage_collection():
            content = msgspec.json.decode(path.read_bytes(), type=_FileWithAreas if areas else _File)
    except msgspec.MsgspecError:  # no strict JSON, or entries that are no objects
        return take_content(read_coco_json(path), areas=areas)
    has_annotations = content.annotations is not UNSET
    return Content(content.images, content.annotations if has_annotations else [], content.categories, has_annotations)


def take_content(content: dict[str, Any], *, areas: bool = True) -> Content:
    """The same of a file that has been read as JSON."""
    kind = AnnotationWithArea if areas else Annotation
    keys = kind.__struct_fields__
    annotations = [
        kind(**{key: entry[key] for key in keys if key in entry}) if isinstance(entry, dict) else entry
        for entry in content.get("annotations", ())
    ]
    return Content(list(content["images"]), annotations, list(content["categories"]), "annotations" in content)


def read_coco_json(annotation_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a COCO annotation file, with everything that is in it, as JSON.

    Raises:
        InputError: the file is missing, is not JSON, or lacks images or categories, or has other things than lists.
    """
    path = find_annotation_file(annotation_file)
    content = read_json(path)
    lacking = [
        key
        for key in SECTIONS
        if not isinstance(content, dict)
        or not isinstance(content.get(key, [] if key == "annotations" and "images" in content else None), list)
    ]
    if lacking:
        raise InputError(f"{path}: not in COCO format: no list under {', '.join(lacking)}")
    return content


def find_annotation_file(annotation_file: str | os.PathLike[str]) -> Path:
    """
    Raises:
        InputError: it is not there.
    """
    path = Path(annotation_file)
    if not path.is_file():
        raise InputError(
            f"{path}: no such annotation file (folder {'exists' if path.parent.is_dir() else 'is missing, too'})"
        )
    return path
