"""COCO annotation files read fast, and in little memory: Detectron2's data set dicts, one at a time.

Most of a file are the corners of polygons. They stay the bytes that they are in the file until the turn of their image
comes, so that never all of them are there as Python numbers, which take several times the time and memory.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from msgspec import UNSET
from pycocotools import mask as mask_util

from resnet_det.data.check import find_annotation_file, read_coco_json
from resnet_det.data.json_files import paused_garbage_collection
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

MIN_POLYGON_NUMBERS = 6  # three corners


class Annotation(msgspec.Struct, gc=False):
    """What Detectron2 takes of an annotation, with the interface of a dict; masks and keypoints are not parsed yet."""

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

    def get(self, key: str, default: Any = None) -> Any:
        value = getattr(self, key, UNSET)
        return default if value is UNSET else value


class _File(msgspec.Struct):
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[Annotation]


def read_coco_index(annotation_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The lists of images, annotations and categories of a COCO annotation file.

    Annotations are of :class:`Annotation`; in a file that is no strict JSON (it has NaN) they are dicts.

    Raises:
        InputError: the file is missing, is not JSON, or lacks one of the lists.
    """
    path = find_annotation_file(annotation_file)
    try:
        with paused_garbage_collection():
            content = msgspec.json.decode(path.read_bytes(), type=_File)
    except msgspec.MsgspecError:  # what is wrong with it is told better there
        return read_coco_json(path)
    return {"images": content.images, "annotations": content.annotations, "categories": content.categories}


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

    Args:
        dataset_name: its metadata get the class names, and categories are counted from 0; None: neither.

    Raises:
        InputError: the file cannot be used.
    """
    with paused_garbage_collection():
        return list(iter_coco_json(annotation_file, image_folder, dataset_name))


def iter_coco_json(
    annotation_file: str | os.PathLike[str], image_folder: str | os.PathLike[str], dataset_name: str | None = None
) -> Iterator[dict[str, Any]]:
    """The same, one dict at a time."""
    content = read_coco_index(annotation_file)
    contiguous_ids = None
    if dataset_name is not None:
        contiguous_ids = _set_metadata(dataset_name, content["categories"])
    return _iter_dicts(content, str(annotation_file), os.fspath(image_folder), contiguous_ids)


def _set_metadata(name: str, categories: list[dict[str, Any]]) -> dict[Any, int]:
    """Take class names into the metadata.

    Returns:
        Places of the categories, in the order of their ids.
    """
    categories = sorted(categories, key=lambda category: category["id"])
    contiguous_ids = {category["id"]: index for index, category in enumerate(categories)}
    metadata = MetadataCatalog.get(name)
    metadata.thing_classes = [category["name"] for category in categories]
    metadata.thing_dataset_id_to_contiguous_id = contiguous_ids
    if list(contiguous_ids) != list(range(1, len(categories) + 1)) and "coco" not in name:
        logger.warning("%s: the ids of its categories are not 1, 2, ...: they are counted from 0 by their order", name)
    return contiguous_ids


def _iter_dicts(
    content: dict[str, Any], file: str, image_folder: str, contiguous_ids: Mapping[Any, int] | None
) -> Iterator[dict[str, Any]]:
    annotations = content["annotations"]
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for annotation in annotations:
        by_image[annotation["image_id"]].append(annotation)
    images = {image["id"]: image for image in content["images"]}
    if "minival" not in file and len({annotation["id"] for annotation in annotations}) < len(annotations):
        raise InputError(f"{file}: ids of annotations are used twice; tools/check_dataset.py --fix gives new ones")
    num_strays = sum(len(rows) for image_id, rows in by_image.items() if image_id not in images)
    if num_strays:
        logger.warning("%s: %d of %d annotations are of no image in it", file, num_strays, len(annotations))
    num_broken = 0
    decode = msgspec.json.Decoder().decode
    for image_id in sorted(images):
        image = images[image_id]
        objects = [_to_object(annotation, decode, contiguous_ids, file) for annotation in by_image.pop(image_id, ())]
        usable = [item for item in objects if item is not None]
        num_broken += len(objects) - len(usable)
        yield {
            "file_name": os.path.join(image_folder, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image_id,
            "annotations": usable,
        }
    if num_broken:
        logger.warning("%s: %d annotations are left out, as their polygons have less than 3 corners", file, num_broken)


def _to_object(annotation: Any, decode: Any, contiguous_ids: Mapping[Any, int] | None, file: str) -> Any:
    """An annotation as Detectron2 has it; None if it has polygons, and all are broken."""
    if annotation.get("ignore", 0) != 0:
        raise InputError(f"{file}: annotation {annotation['id']} has 'ignore', which Detectron2 does not know")
    item = {key: annotation[key] for key in ("iscrowd", "bbox", "category_id") if key in annotation}
    if "bbox" in item and len(item["bbox"]) == 0:
        raise InputError(f"{file}: annotation {annotation['id']} has an empty bbox")
    segmentation = _parsed(annotation.get("segmentation"), decode)
    if segmentation:
        if isinstance(segmentation, list):
            segmentation = [part for part in segmentation if len(part) % 2 == 0 and len(part) >= MIN_POLYGON_NUMBERS]
            if not segmentation:
                return None
        elif isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        item["segmentation"] = segmentation
    if "keypoints" in annotation:
        # From pixel indices to coordinates, where the middle of the first pixel is at 0.5.
        keypoints = _parsed(annotation["keypoints"], decode) or []
        item["keypoints"] = [value if place % 3 == 2 else value + 0.5 for place, value in enumerate(keypoints)]
    item["bbox_mode"] = BoxMode.XYWH_ABS
    if contiguous_ids is not None:
        if item["category_id"] not in contiguous_ids:
            raise InputError(f"{file}: annotation {annotation['id']} is of category {item['category_id']}, not listed")
        item["category_id"] = contiguous_ids[item["category_id"]]
    return item


def _parsed(value: Any, decode: Any) -> Any:
    return decode(value) if isinstance(value, msgspec.Raw) else value
