"""Labelled images on their way from another format to COCO's: what the readers of VOC and YOLO have in common."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_det.data.coco import judge_content
from resnet_det.data.coco.image_files import check_images
from resnet_det.errors import InputError
from resnet_det.outputs import OutputFolder

MAX_LISTED = 10  # problems listed in a message
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class LabelledObject:
    """One object: its class, box [x, y, width, height], polygon [x0, y0, ...] and keypoints [x, y, visibility, ...] in
    pixels, and COCO's ``iscrowd``."""

    class_name: str
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...] = ()
    is_crowd: bool = False
    keypoints: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """One image below the image folder of its split, and its objects."""

    file_name: str
    width: int
    height: int
    objects: list[LabelledObject]


@dataclass
class Split:
    """The images of one split, and everything that is wrong with its files.

    Args:
        problems: what keeps the split from being used.
        left_out: lines or objects that cannot be read, and are left out.
        mended: what was mended, and how often.
        notes: what else is to be said.
    """

    name: str
    image_folder: Path
    images: list[LabelledImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
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
        strict: lines and objects that are left out are problems, too. They are so anyway where they are more than the
            objects that can be read: then it is another format.

    Raises:
        InputError: a file is there already; or a split has problems; the first ones are listed, and nothing is written.
    """
    problems = [problem for split in splits for problem in split.problems]
    for split in splits:
        if strict or len(split.left_out) > split.num_objects:
            problems += split.left_out
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
    """The content of a COCO annotation file. Ids start at 1; areas are those of the polygons, else of the boxes."""
    category_ids = {name: index for index, name in enumerate(classes.names, start=1)}
    annotations = []
    for image_id, image in enumerate(images, start=1):
        for item in image.objects:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category_ids[item.class_name],
                "bbox": list(item.box),
                "area": polygon_area(item.polygon) if item.polygon else item.box[2] * item.box[3],
                "iscrowd": int(item.is_crowd),
            }
            if item.polygon:
                annotation["segmentation"] = [list(item.polygon)]
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
    return lines + split.notes[:MAX_LISTED]


def count_objects(split: Split, class_names: Sequence[str]) -> dict[str, int]:
    """How many objects of each class ``split`` has."""
    counts = Counter(item.class_name for image in split.images for item in image.objects)
    return {name: counts[name] for name in class_names}


def polygon_area(polygon: Sequence[float]) -> float:
    """Area in pixels of a polygon [x0, y0, x1, y1, ...]."""
    x, y = polygon[::2], polygon[1::2]
    corners = zip(x, y, (*x[1:], x[0]), (*y[1:], y[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in corners)) / 2
