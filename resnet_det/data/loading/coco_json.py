"""Detectron2's data set dicts of COCO annotation files, one at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from msgspec import UNSET

from resnet_det.data.coco import CocoData, read_coco
from resnet_det.data.coco.json_files import paused_garbage_collection

logger = logging.getLogger(__name__)

TASKS = ("masks", "keypoints")


@dataclass(frozen=True)
class CocoLoader:
    """Loads a data set in COCO format: what Detectron2's DatasetCatalog calls for its name."""

    annotation_file: str
    image_folder: str
    name: str

    def __call__(self) -> list[dict[str, Any]]:
        return load_coco_json(self.annotation_file, self.image_folder, self.name)


def load_coco_json(
    annotation_file: str | os.PathLike[str], image_folder: str | os.PathLike[str], dataset_name: str | None = None
) -> list[dict[str, Any]]:
    """The data set dicts of a COCO annotation file, equal to those of Detectron2's function of this name.

    They differ where something is wrong with an annotation: an object whose mask cannot be used stays, without it, and
    one whose box has no area is left out.

    Args:
        dataset_name: its metadata get the class names, and categories are counted from 0; None: neither.

    Raises:
        InputError: the file cannot be used.
    """
    with paused_garbage_collection():
        return list(iter_coco_json(annotation_file, image_folder, dataset_name))


def iter_coco_json(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    dataset_name: str | None = None,
    *,
    tasks: Sequence[str] = TASKS,
) -> Iterator[dict[str, Any]]:
    """The same, one dict at a time.

    Args:
        tasks: of ``TASKS``: what is read besides boxes. What is not read is not judged either.
    """
    rules = {} if dataset_name is None else reading_rules(dataset_name)
    data = read_coco(annotation_file, image_folder, areas=False, **rules)
    data.raise_problems(str(annotation_file))
    if dataset_name is not None:
        set_metadata(dataset_name, data)
    return _iter_dicts(data, os.fspath(image_folder), dataset_name, tasks=tasks)


def reading_rules(name: str) -> dict[str, Any]:
    """How the data set is read wherever it is used: keywords of :func:`read_coco`."""
    return dict(MetadataCatalog.get(name).get("reading_rules", {}))


def set_reading_rules(name: str, rules: Mapping[str, Any]) -> None:
    """Let the data set be read by other rules from now on."""
    metadata = MetadataCatalog.get(name)
    if reading_rules(name).get("classes", ()) != rules.get("classes", ()):
        for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
            vars(metadata).pop(key, None)
    vars(metadata)["reading_rules"] = dict(rules)  # Detectron2's own way does not let a value change


def set_metadata(name: str, data: CocoData) -> None:
    """Take the class names into the metadata, and the places of the categories in the order of their ids."""
    contiguous_ids = {category["id"]: index for index, category in enumerate(data.categories)}
    metadata = MetadataCatalog.get(name)
    metadata.thing_classes = data.class_names
    metadata.thing_dataset_id_to_contiguous_id = contiguous_ids
    if list(contiguous_ids) != list(range(1, len(contiguous_ids) + 1)) and "coco" not in name:
        logger.warning("%s: the ids of its categories are not 1, 2, ...: they are counted from 0 by their order", name)


def _iter_dicts(
    data: CocoData, image_folder: str, dataset_name: str | None, *, tasks: Sequence[str]
) -> Iterator[dict[str, Any]]:
    order = np.argsort(data.image, kind="stable")
    ends = np.cumsum(np.bincount(data.image, minlength=len(data.images))).tolist()
    order, start = order.tolist(), 0
    counts_classes = dataset_name is not None
    category_ids = data.category.tolist() if counts_classes else [entry.category_id for entry in data.annotations]
    for image, end in zip(data.images, ends, strict=True):
        objects = [_make_object(data, row, category_ids[row], tasks) for row in order[start:end]]
        start = end
        yield {
            "file_name": os.path.join(image_folder, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": objects,
        }
    if dataset_name is not None:
        vars(MetadataCatalog.get(dataset_name))["left_out"] = dict(data.left_out())
    for line in data.describe_warnings():
        logger.warning("%s: %s", data.path, line)


def _make_object(data: CocoData, row: int, category_id: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """An annotation as Detectron2 has it."""
    entry = data.annotations[row]
    item = {"bbox": entry.bbox, "category_id": category_id, "bbox_mode": BoxMode.XYWH_ABS}
    if entry.iscrowd is not UNSET:
        item["iscrowd"] = entry.iscrowd
    if "masks" in tasks and (mask := data.mask(row)) is not None:
        item["segmentation"] = mask
    if "keypoints" in tasks and entry.keypoints is not UNSET:
        # From pixel indices to coordinates, where the middle of the first pixel is at 0.5.
        keypoints = data.keypoints(row) or []
        item["keypoints"] = [value if place % 3 == 2 else value + 0.5 for place, value in enumerate(keypoints)]
    return item
