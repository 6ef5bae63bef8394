"""Data sets by name: own ones in COCO format, and the demo data, which are made when they are first needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from resnet_det.data.check import check_coco
from resnet_det.data.coco_json import CocoLoader, read_coco_index
from resnet_det.data.demo import SPLITS, make_demo_data
from resnet_det.errors import InputError

DEMO_FOLDER = "resnet_det_demo_v1"  # below DETECTRON2_DATASETS; a new number with every change of the data


def register_coco(name: str, annotation_file: str, image_folder: str) -> None:
    """Make a data set in COCO format known to Detectron2 under ``name``. Its files are looked at when it is used.

    Raises:
        InputError: another data set has that name.
    """
    annotation_file, image_folder = str(annotation_file), str(image_folder)
    if name in DatasetCatalog:
        known = MetadataCatalog.get(name)
        if (known.get("json_file"), known.get("image_root")) == (annotation_file, image_folder):
            return
        raise InputError(
            f"RESNET_DET.DATA.COCO: the name {name!r} is taken by {known.get('json_file') or 'another data set'}"
        )
    DatasetCatalog.register(name, CocoLoader(annotation_file, image_folder, name))
    MetadataCatalog.get(name).set(json_file=annotation_file, image_root=image_folder, evaluator_type="coco")


def register_cfg_datasets(cfg: CfgNode) -> None:
    """Register the sets of RESNET_DET.DATA.COCO.

    Raises:
        InputError: an entry is not [name, annotation file, image folder], or its name is taken.
    """
    for entry in cfg.RESNET_DET.DATA.COCO:
        if not isinstance(entry, (list, tuple)) or len(entry) != 3 or not all(isinstance(part, str) for part in entry):
            raise InputError(f"RESNET_DET.DATA.COCO has {entry!r}; each entry is [name, annotation file, image folder]")
        register_coco(*entry)


def register_demo_datasets() -> None:
    """Register ``resnet_det_demo_{train,val}`` and, with keypoints, ``resnet_det_demo_keypoints_{train,val}``."""
    folder = Path(os.getenv("DETECTRON2_DATASETS", "datasets"), DEMO_FOLDER)
    for split in SPLITS:
        for kind, name in (
            ("instances", f"resnet_det_demo_{split}"),
            ("keypoints", f"resnet_det_demo_keypoints_{split}"),
        ):
            register_coco(name, str(folder / "annotations" / f"{kind}_{split}.json"), str(folder / split))


def prepare_dataset(name: str, *, needed: Sequence[str] = (), needs_objects: bool = False) -> None:
    """Check a COCO-format data set and take its class and keypoint names into Detectron2's metadata.

    The demo data are made if they are not there; data sets of other formats are left to Detectron2.

    Args:
        needed: what each annotation must have besides its box, such as "segmentation".
        needs_objects: it is an error if nothing is annotated (but regions of many objects).

    Raises:
        InputError: no data set has that name, or its files have problems; all of them are listed.
    """
    if name not in DatasetCatalog:
        raise InputError(f"DATASETS: no data set {name!r}; known are {', '.join(sorted(DatasetCatalog.list()))}")
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco" or metadata.get("json_file") is None:
        return
    if name.startswith("resnet_det_demo_"):
        make_demo_data(Path(metadata.json_file).parent.parent)
    content = read_coco_index(metadata.json_file)
    problems = check_coco(content, metadata.image_root, needed)
    if not problems and needs_objects and all(entry.get("iscrowd") for entry in content["annotations"]):
        problems = ["it has no annotated objects to train on"]
    if problems:
        raise InputError.from_problems(f"data set {name} ({metadata.json_file})", problems)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = [category["name"] for category in categories]
    if metadata.get("thing_classes", names) != names:
        raise InputError(
            f"{metadata.json_file}: the classes are {names}, but those of {name} are {metadata.thing_classes}"
        )
    metadata.thing_classes = names
    metadata.thing_dataset_id_to_contiguous_id = {category["id"]: place for place, category in enumerate(categories)}
    keypoint_names = categories[0].get("keypoints")
    if keypoint_names and metadata.get("keypoint_names") is None:
        metadata.set(keypoint_names=list(keypoint_names), keypoint_flip_map=find_flip_pairs(keypoint_names))


def find_flip_pairs(keypoint_names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of keypoints that a mirrored image swaps: names that differ by "left" and "right" alone."""
    mirrored = {name: name.replace("left", "right") for name in keypoint_names if "left" in name}
    return [(left, right) for left, right in mirrored.items() if right in keypoint_names]


def count_classes(names: Sequence[str]) -> int | None:
    """The number of classes of the data sets ``names``; None if Detectron2 does not know it.

    Raises:
        InputError: they do not all have the same classes.
    """
    classes: dict[str, list[str]] = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    known = {name: value for name, value in classes.items() if value is not None}
    for name, value in known.items():
        first: Any = next(iter(known))
        if value != known[first]:
            raise InputError(f"DATASETS: {first} and {name} do not have the same classes: {known[first]} and {value}")
    return len(next(iter(known.values()))) if known else None


register_demo_datasets()
