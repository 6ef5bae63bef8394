"""A small panoptic data set in Detectron2's layout, made up."""

from __future__ import annotations

import json

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_panoptic_separated
from PIL import Image

from resnet_det.evaluation.panoptic import ids_to_rgb

SIZE = 64, 80  # height, width
THINGS = {3: "cat", 7: "dog"}
STUFF = {92: "grass", 93: "sky"}
NAME = "tiny_panoptic_separated"


def random_segments(rng, *, void=True):
    """A picture of ids (0: void) and its segments: stuff in two halves, and things on them, some of them crowds."""
    ids = np.zeros(SIZE, dtype=np.int64)
    edge = rng.integers(20, 44)
    ids[: edge - 5 * void], ids[edge:] = 300, 70_000
    segments = [{"id": 300, "category_id": 93, "iscrowd": 0}, {"id": 70_000, "category_id": 92, "iscrowd": 0}]
    for number in range(rng.integers(1, 5)):
        y, x = rng.integers(0, 40), rng.integers(0, 50)
        height, width = rng.integers(8, 24, 2)
        ids[y : y + height, x : x + width] = 1000 + number
        crowd = int(rng.random() < 0.2)
        segments.append({"id": 1000 + number, "category_id": int(rng.choice(list(THINGS))), "iscrowd": crowd})
    for segment in segments:
        segment["area"] = int((ids == segment["id"]).sum())
        rows, columns = np.nonzero(ids == segment["id"])
        if len(rows):
            low, high = (int(columns.min()), int(rows.min())), (int(columns.max()), int(rows.max()))
            segment["bbox"] = [*low, high[0] - low[0] + 1, high[1] - low[1] + 1]
    return ids, [segment for segment in segments if segment["area"]]


def make_panoptic_set(folder, num_images=4):
    """Write images, panoptic PNGs and JSON, instances and semantic PNGs, and register the set as ``NAME``."""
    rng = np.random.default_rng(0)
    for name in ("images", "panoptic", "semantic"):
        (folder / name).mkdir(parents=True)
    categories = [{"id": key, "name": name, "isthing": 1} for key, name in THINGS.items()]
    categories += [{"id": key, "name": name, "isthing": 0} for key, name in STUFF.items()]
    images, annotations, instances = [], [], []
    for number in range(1, num_images + 1):
        ids, segments = random_segments(rng)
        entry = {"id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]}
        images.append(entry)
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(folder / "images" / entry["file_name"])
        Image.fromarray(ids_to_rgb(ids)).save(folder / "panoptic" / f"{number}.png")
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        semantic = np.full(SIZE, 255, dtype=np.uint8)
        for segment in segments:
            is_thing = segment["category_id"] in THINGS
            semantic[ids == segment["id"]] = 0 if is_thing else 1 + list(STUFF).index(segment["category_id"])
            if is_thing:
                x, y, width, height = segment["bbox"]
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                kept = {key: segment[key] for key in ("category_id", "bbox", "area", "iscrowd")}
                instances.append({**kept, "id": len(instances) + 1, "image_id": number, "segmentation": [corners]})
        Image.fromarray(semantic).save(folder / "semantic" / f"{number}.png")
    common = {"images": images, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps({**common, "annotations": annotations}))
    things = {"images": images, "categories": categories[: len(THINGS)], "annotations": instances}
    (folder / "instances.json").write_text(json.dumps(things))
    forget_panoptic_set()
    metadata = {
        "thing_dataset_id_to_contiguous_id": {key: place for place, key in enumerate(THINGS)},
        "stuff_dataset_id_to_contiguous_id": {0: 0, **{key: place for place, key in enumerate(STUFF, start=1)}},
        "thing_classes": list(THINGS.values()),
        "stuff_classes": ["things", *STUFF.values()],
    }
    register_coco_panoptic_separated(
        "tiny_panoptic",
        metadata,
        str(folder / "images"),
        str(folder / "panoptic"),
        str(folder / "panoptic.json"),
        str(folder / "semantic"),
        str(folder / "instances.json"),
    )
    return NAME


def forget_panoptic_set():
    for name in (NAME, "tiny_panoptic_stuffonly"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
