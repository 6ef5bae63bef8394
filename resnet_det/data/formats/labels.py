"""Labelled images on their way from another format to COCO's: what all readers have in common."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_util

from resnet_det.data.coco import judge_content
from resnet_det.data.coco.image_files import check_images
from resnet_det.data.coco.masks import as_json
from resnet_det.errors import InputError
from resnet_det.images.pages import DICOM_SUFFIXES
from resnet_det.outputs import OutputFolder

MAX_LISTED = 10  # problems listed in a message
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", *DICOM_SUFFIXES)


@dataclass(frozen=True)
class LabelledObject:
    """One object.

    Args:
        box: x, y, width, height in pixels.
        mask: polygons [x0, y0, ...] in pixels, or pycocotools' run lengths.
        is_crowd: COCO's ``iscrowd``.
        keypoints: x, y in pixels and visibility of each.
    """

    class_name: str
    box: tuple[float, float, float, float]
    mask: Sequence[Sequence[float]] | dict[str, Any] = ()
    is_crowd: bool = False
    keypoints: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """One image below the image folder of its split, or a page of a stack (``stack.tif#3``), and its objects."""

    file_name: str
    width: int
    height: int
    objects: list[LabelledObject]


@dataclass
class Split:
    """The images of one split, and everything that is wrong with its files.

    Args:
        problems: what keeps the split from being used.
        left_out: images, lines or objects that cannot be read, and are left out.
        unread: objects of a kind that is not read, such as points, and how many.
        mended: what was mended, and how often.
        notes: what else is to be said.
    """

    name: str
    image_folder: Path
    images: list[LabelledImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def num_objects(self) -> int:
        return sum(len(image.objects) for image in self.images)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set in their order, and the names of the keypoints, if objects have any."""

    names: list[str]
    keypoints: list[str] = field(default_factory=list)


def write_coco(
    splits: Sequence[Split], classes: Classes, folder: str | os.PathLike[str], *, strict: bool = False
) -> list[Path]:
    """Write ``<folder>/<split>.json`` for each split, all or none.

    Args:
        strict: what is left out or not read is a problem, too. What cannot be read is so anyway where that is more
            than the objects that can be: then it is another format.

    Raises:
        InputError: a file is there already; or a split has problems; the first ones are listed, and nothing is written.
    """
    problems = [problem for split in splits for problem in split.problems]
    for split in splits:
        if strict or len(split.left_out) > split.num_objects:
            problems += split.left_out
        if strict:
            problems += [f"{split.name}: {count} {what}" for what, count in split.unread.items()]
    contents = [to_coco(split.images, classes) for split in splits]
    for split, content in zip(splits, contents, strict=True):
        if not split.problems:
            data = judge_content(content, split.image_folder)
            found = [*data.problems(), *check_images(data, split.image_folder)]
            problems += [f"{split.name}: {problem}" for problem in found]
    if problems:
        more = [f"and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        raise InputError.from_problems(f"problems: {len(problems)}; nothing written", problems[:MAX_LISTED] + more)
    folder = Path(folder)
    files = OutputFolder(folder)
    paths = [files.claim(f"{split.name}.json") for split in splits]
    with tempfile.TemporaryDirectory(prefix=".coco-", dir=folder) as work:
        for path, content in zip(paths, contents, strict=True):
            Path(work, path.name).write_text(json.dumps(content))
        for path in paths:
            Path(work, path.name).replace(path)
    return paths


def to_coco(images: Sequence[LabelledImage], classes: Classes) -> dict[str, Any]:
    """The content of a COCO annotation file. Ids start at 1; areas are those of the masks, else of the boxes."""
    category_ids = {name: index for index, name in enumerate(classes.names, start=1)}
    annotations = []
    for image_id, image in enumerate(images, start=1):
        for item in image.objects:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category_ids[item.class_name],
                "bbox": list(item.box),
                "area": mask_area(item.mask, image) if item.mask else item.box[2] * item.box[3],
                "iscrowd": int(item.is_crowd),
            }
            if isinstance(item.mask, dict):
                annotation["segmentation"] = as_json(item.mask)
            elif item.mask:
                annotation["segmentation"] = [list(polygon) for polygon in item.mask]
            if item.keypoints:
                annotation["keypoints"] = list(item.keypoints)
                annotation["num_keypoints"] = sum(visibility > 0 for visibility in item.keypoints[2::3])
            annotations.append(annotation)
    return {
        "images": [
            {"id": image_id, "file_name": image.file_name, "height": image.height, "width": image.width}
            for image_id, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": index, "name": name} | ({"keypoints": classes.keypoints} if classes.keypoints else {})
            for name, index in category_ids.items()
        ],
    }


def describe_losses(split: Split) -> list[str]:
    """What was left out, mended, and else is to be said of a split, line by line."""
    lines = [f"{count} {what}" for what, count in split.mended.items()]
    if split.left_out:
        lines.append(f"{len(split.left_out)} left out, such as {split.left_out[0]}")
        lines += [f"  {one}" for one in split.left_out[1:MAX_LISTED]]
    lines += [f"{count} {what}: not read" for what, count in split.unread.items()]
    return lines + split.notes[:MAX_LISTED]


def count_objects(split: Split, class_names: Sequence[str]) -> dict[str, int]:
    """How many objects of each class ``split`` has."""
    counts = Counter(item.class_name for image in split.images for item in image.objects)
    return {name: counts[name] for name in class_names}


def place_images(split: Split, found: Sequence[tuple[Path, tuple[int, int], list[LabelledObject]]]) -> None:
    """Take images with their sizes and objects into ``split``, whose image folder becomes the one that has them all."""
    parents = {os.path.abspath(path.parent) for path, _, _ in found}
    if parents:
        split.image_folder = Path(os.path.commonpath(parents))
    split.images += [
        LabelledImage(os.path.relpath(os.path.abspath(path), split.image_folder), *size, objects)
        for path, size, objects in found
    ]


def take_classes(splits: Sequence[Split], class_names: Sequence[str]) -> Classes:
    """The classes of all objects: those that were asked for, in their order, else all that occur, by alphabet.

    Objects of other classes are left out and counted.
    """
    if not class_names:
        return Classes(
            sorted({item.class_name for split in splits for image in split.images for item in image.objects})
        )
    for split in splits:
        for image in split.images:
            others = [item.class_name for item in image.objects if item.class_name not in class_names]
            if others:
                split.unread.update(f"objects of {name!r}, which is not among the classes given" for name in others)
                image.objects[:] = [item for item in image.objects if item.class_name in class_names]
    return Classes(list(class_names))


def mask_area(mask: Sequence[Sequence[float]] | dict[str, Any], image: LabelledImage) -> float:
    """Area of a mask in pixels; of several polygons, that of their union."""
    if not isinstance(mask, dict):
        if len(mask) == 1:
            return polygon_area(mask[0])
        mask = mask_util.merge(mask_util.frPyObjects([list(polygon) for polygon in mask], image.height, image.width))
    return float(mask_util.area(mask))


def polygon_area(polygon: Sequence[float]) -> float:
    """Area in pixels of a polygon [x0, y0, x1, y1, ...]."""
    x, y = polygon[::2], polygon[1::2]
    corners = zip(x, y, (*x[1:], x[0]), (*y[1:], y[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in corners)) / 2
