"""Data sets by name: own ones in COCO format, and the demo data, which are made when they are first needed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from resnet_det.data.coco import CROWD_ADVICE, CocoData, read_coco
from resnet_det.data.coco.image_files import check_images
from resnet_det.data.coco.keypoints import Keypoints, colour_limbs, find_flip_pairs, find_keypoints
from resnet_det.data.demo import SPLITS, make_demo_data
from resnet_det.data.loading.coco_json import CocoLoader, reading_rules, set_reading_rules
from resnet_det.errors import InputError

ROBOFLOW_STEM = "_annotations.coco"  # of the file of each split, which lies among its images
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


def name_own_dataset(annotation_file: str, image_folder: str, entries: Sequence[Sequence[str]] = ()) -> str:
    """A name for own data that no other data set has: the file's stem, with the folders above it as far as needed.

    Roboflow calls the file of each split _annotations.coco.json, CVAT that of each task instances_default.json.

    Args:
        annotation_file, image_folder: absolute paths.
        entries: [name, annotation file, image folder] of sets that may not be registered yet.
    """
    taken = {entry[0]: tuple(map(str, entry[1:])) for entry in entries}
    for name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        taken.setdefault(name, (metadata.get("json_file"), metadata.get("image_root")))
    path = Path(annotation_file)
    folders = [part for part in path.parent.parts if part != path.anchor]
    if path.stem == ROBOFLOW_STEM:
        names = ["_".join([*folders[-count:], "annotations"]) for count in range(1, len(folders) + 1)]
    else:
        names = [path.stem, *("_".join([*folders[-count:], path.stem]) for count in range(1, len(folders) + 1))]
    numbered = (f"{names[0]}_{number}" for number in itertools.count(2))
    mine = (annotation_file, image_folder)
    return next(name for name in itertools.chain(names, numbered) if taken.get(name, mine) == mine)


def register_cfg_datasets(cfg: CfgNode, more: Sequence[str] = ()) -> None:
    """Register the sets of RESNET_DET.DATA.COCO, and let all sets of ``cfg`` be read by its rules.

    Args:
        more: names of other sets that are read by them.

    Raises:
        InputError: an entry is not [name, annotation file, image folder], or its name is taken.
    """
    for entry in cfg.RESNET_DET.DATA.COCO:
        if not isinstance(entry, (list, tuple)) or len(entry) != 3 or not all(isinstance(part, str) for part in entry):
            raise InputError(f"RESNET_DET.DATA.COCO has {entry!r}; each entry is [name, annotation file, image folder]")
        register_coco(*entry)
    rules = {
        "crowd_as_objects": cfg.RESNET_DET.DATA.CROWD_AS_OBJECTS,
        "classes": tuple(cfg.RESNET_DET.DATA.CLASSES),
    }
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *more):
        set_reading_rules(name, rules)


def register_demo_datasets() -> None:
    """Register ``resnet_det_demo_{train,val}`` and, with keypoints, ``resnet_det_demo_keypoints_{train,val}``."""
    folder = Path(os.getenv("DETECTRON2_DATASETS", "datasets"), DEMO_FOLDER)
    for split in SPLITS:
        for kind, name in (
            ("instances", f"resnet_det_demo_{split}"),
            ("keypoints", f"resnet_det_demo_keypoints_{split}"),
        ):
            register_coco(name, str(folder / "annotations" / f"{kind}_{split}.json"), str(folder / split))


@dataclass(frozen=True)
class PreparedSet:
    """What a config must know of a data set.

    Args:
        keypoints: None if it has none.
        has_run_lengths: whether masks of objects are run-length codes, which MASK_FORMAT polygon cannot take.
    """

    keypoints: Keypoints | None = None
    has_run_lengths: bool = False


def prepare_dataset(name: str, *, tasks: Sequence[str] = (), trains: bool = False) -> PreparedSet:
    """Read and judge a COCO-format data set, and take its class and keypoint names into Detectron2's metadata.

    The demo data are made if they are not there; data sets of other formats are left to Detectron2.

    Args:
        tasks: of "masks" and "keypoints": what it must have besides boxes.
        trains: it is trained on: it is an error if it, or a class, has nothing but crowd regions.

    Raises:
        InputError: no data set has that name, or its files have problems; all of them are listed.
    """
    if name not in DatasetCatalog:
        raise InputError(f"DATASETS: no data set {name!r}; known are {', '.join(sorted(DatasetCatalog.list()))}")
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco" or metadata.get("json_file") is None:
        if reading_rules(name).get("classes"):
            raise InputError(f"RESNET_DET.DATA.CLASSES: data set {name} is not in COCO format: its classes stay")
        return PreparedSet()
    if name.startswith("resnet_det_demo_"):
        make_demo_data(Path(metadata.json_file).parent.parent)
    data = read_coco(metadata.json_file, metadata.image_root, areas=False, **reading_rules(name))
    where = f"data set {name} ({metadata.json_file})"
    data.raise_problems(where, trains=trains)
    keypoints, problems = _find_keypoints(data, needs_them="keypoints" in tasks)
    if trains and not (~data.crowd).any():
        problems.append(_explain_no_objects(data))
    elif "masks" in tasks and (trains or data.has_annotations) and len(data.annotations) and not data.has_masks():
        problems.append(_explain_no_masks(data))
    problems += check_images(data, metadata.image_root)
    data.raise_problems(where, trains=trains, more=problems)
    if metadata.get("thing_classes", data.class_names) != data.class_names:
        raise InputError(
            f"{metadata.json_file}: the classes are {data.class_names}, but those of {name} are "
            f"{metadata.thing_classes}"
        )
    metadata.thing_classes = data.class_names
    metadata.thing_dataset_id_to_contiguous_id = {
        category["id"]: place for place, category in enumerate(data.categories)
    }
    if keypoints is not None and metadata.get("keypoint_names") is None:
        metadata.set(keypoint_names=list(keypoints.names), keypoint_flip_map=find_flip_pairs(keypoints.names))
        metadata.set(keypoint_connection_rules=colour_limbs(keypoints))
    return PreparedSet(keypoints, data.has_run_lengths())


def _find_keypoints(data: CocoData, *, needs_them: bool) -> tuple[Keypoints | None, list[str]]:
    """The keypoints of a set, and what is wrong with them where they are needed."""
    try:
        keypoints = find_keypoints(data)
    except InputError as error:
        return None, [str(error)] if needs_them else []
    if keypoints is None and needs_them and len(data.annotations):
        return None, ["no object has keypoints, which MODEL.KEYPOINT_ON asks for: set it to False"]
    return keypoints, []


def _explain_no_objects(data: CocoData) -> str:
    if data.crowd.any():
        return f"all {len(data.annotations)} annotations are crowd regions, nothing is left to train on; {CROWD_ADVICE}"
    counts = ", ".join(f"{count} {what}" for what, count in data.left_out().items())
    return "it has no annotated objects to train on" + (f" ({counts} left out)" if counts else "")


def _explain_no_masks(data: CocoData) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in data.left_out().items() if what.startswith(("m", "p")))
    return (
        f"none of its {len(data.annotations)} annotations has a mask (segmentation) that can be used, which "
        "MODEL.MASK_ON or RESNET_DET.DATA.COPY_PASTE asks for: set MODEL.MASK_ON False to train on boxes alone"
        + (f" ({counts})" if counts else "")
    )


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
