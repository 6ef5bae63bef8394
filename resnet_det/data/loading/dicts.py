"""The data set dicts of data sets by name, as loaders take them."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import print_instances_class_histogram

from resnet_det.data.coco import Usage
from resnet_det.data.coco.json_files import paused_garbage_collection
from resnet_det.data.loading.coco_json import TASKS, CocoLoader, iter_coco_json
from resnet_det.data.loading.proposals import add_proposals
from resnet_det.data.loading.serialized import SerializedDicts
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)


def load_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    *,
    tasks: Sequence[str] = TASKS,
) -> SerializedDicts:
    """Detectron2's ``get_detection_dataset_dicts``, in less time and memory.

    Args:
        filter_empty: leave out images without objects (or with regions of many objects alone).
        min_keypoints: leave out images with fewer labelled keypoints.
        proposal_files: precomputed proposals, one file for each data set.
        tasks: "masks", "keypoints": what is read besides boxes; what is not read is not judged either.

    Raises:
        InputError: nothing is left.
    """
    names = [names] if isinstance(names, str) else list(names)
    counts: Counter[int] = Counter()
    used: Counter[str] = Counter()
    num_images = 0

    def usable() -> Iterator[dict[str, Any]]:
        nonlocal num_images
        for number, name in enumerate(names):
            used.clear()
            dicts = iter_dataset_dicts(name, tasks)
            if proposal_files is not None:
                dicts = add_proposals(dicts, proposal_files[number])
            for entry in dicts:
                num_images += 1
                if "annotations" in entry:
                    objects = [item for item in entry["annotations"] if item.get("iscrowd", 0) == 0]
                    if filter_empty and not objects:
                        continue
                    if min_keypoints and count_keypoints(entry["annotations"]) < min_keypoints:
                        continue
                    counts.update(item["category_id"] for item in objects)
                    used["objects"] += len(objects)
                    used["masks"] += sum("segmentation" in item for item in objects)
                    used["keypoints"] += count_keypoints(objects)
                used["images"] += 1
                yield entry
            _note_use(name, used)

    with paused_garbage_collection():
        dicts = SerializedDicts(usable())
    if not len(dicts):
        raise InputError(f"DATASETS: {', '.join(names)} have {num_images} images, and none with objects to use")
    if len(dicts) < num_images:
        logger.info("%d of %d images are left out, as they have no usable objects", num_images - len(dicts), num_images)
    logger.info("%s: %d images in %.0f MiB", ", ".join(names), len(dicts), dicts.num_bytes / 2**20)
    class_names = MetadataCatalog.get(names[0]).get("thing_classes")
    if class_names:
        print_instances_class_histogram([{"annotations": [{"category_id": c} for c in counts.elements()]}], class_names)
    return dicts


def choose_evenly(dicts: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """At most ``count`` of a data set's dicts, from all over it."""
    count = min(count, len(dicts))
    return [dicts[index * len(dicts) // count] for index in range(count)]


def _note_use(name: str, used: Counter[str]) -> None:
    """Say how much of a data set is used, and keep that for the results of the run."""
    metadata = MetadataCatalog.get(name)
    usage = Usage(
        **{what: used[what] for what in ("images", "objects", "masks", "keypoints")},
        classes=len(metadata.get("thing_classes") or ()),
        left_out=metadata.get("left_out") or {},
    )
    vars(metadata)["usage_when_loaded"] = usage  # it may be another one than in an earlier run
    logger.info("%s: loaded %s", name, usage)


def iter_dataset_dicts(name: str, tasks: Sequence[str] = TASKS) -> Iterable[dict[str, Any]]:
    """The data set dicts of one data set: those in COCO format one at a time, others as the catalogue has them."""
    loader = find_coco_loader(name)
    if loader is None:
        return DatasetCatalog.get(name)
    return iter_coco_json(loader.annotation_file, loader.image_folder, loader.name, tasks=tasks)


def find_coco_loader(name: str) -> CocoLoader | None:
    """How a data set in COCO format is loaded; None if it has another format, or a function of its own.

    Those of Detectron2's ``register_coco_instances`` (``coco_2017_train``, ...) are known by the function that it has
    put into the catalogue; that stays there.
    """
    if name not in DatasetCatalog:
        return None
    function = DatasetCatalog[name]
    if isinstance(function, CocoLoader):
        return function
    if getattr(function, "__module__", "") != "detectron2.data.datasets.coco":
        return None
    values = inspect.getclosurevars(function).nonlocals
    if function.__qualname__ != "register_coco_instances.<locals>.<lambda>" or len(values) != 3:
        return None
    return CocoLoader(str(values["json_file"]), str(values["image_root"]), values["name"])


def count_keypoints(annotations: Iterable[dict[str, Any]]) -> int:
    """How many labelled keypoints an image has."""
    return sum(visible > 0 for annotation in annotations for visible in annotation.get("keypoints", ())[2::3])
