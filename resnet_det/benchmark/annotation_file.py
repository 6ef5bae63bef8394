"""A made-up annotation file as large as COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NUM_CATEGORIES = 80
HEIGHT_PX, WIDTH_PX = 480, 640
MAX_CORNERS = 48  # of a polygon: 25 on average, as in COCO train2017, which makes the files equally large
CHUNK = 10_000


def write_annotation_file(path: Path, num_images: int, num_annotations: int, seed: int = 0) -> None:
    """Write a file in COCO's format: each annotation is one polygon of random corners, with its box."""
    random = np.random.default_rng(seed)
    image_ids = random.integers(1, num_images + 1, num_annotations)
    images = [
        {
            "license": 1 + image_id % 6,
            "file_name": f"{image_id:012d}.jpg",
            "coco_url": f"http://images.example.org/train/{image_id:012d}.jpg",
            "height": HEIGHT_PX,
            "width": WIDTH_PX,
            "date_captured": "2013-11-14 11:18:45",
            "id": image_id,
        }
        for image_id in range(1, num_images + 1)
    ]
    categories = [
        {"id": 1 + index, "name": f"class {index}", "supercategory": "any"} for index in range(NUM_CATEGORIES)
    ]
    with path.open("w") as file:
        file.write(f'{{"info": {{}}, "images": {json.dumps(images)}, "categories": {json.dumps(categories)}, ')
        file.write('"annotations": [')
        for start in range(0, num_annotations, CHUNK):
            annotations = [
                _make_annotation(1 + index, int(image_ids[index]), random)
                for index in range(start, min(start + CHUNK, num_annotations))
            ]
            file.write((", " if start else "") + json.dumps(annotations)[1:-1])
        file.write("]}")


def _make_annotation(annotation_id: int, image_id: int, random: np.random.Generator) -> dict:
    num_corners = random.integers(3, MAX_CORNERS)
    corners = (random.random((num_corners, 2)) * (WIDTH_PX, HEIGHT_PX)).round(2)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return {
        "segmentation": [corners.ravel().tolist()],
        "area": round(float((x1 - x0) * (y1 - y0) / 2), 4),
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": [float(x0), float(y0), round(float(x1 - x0), 2), round(float(y1 - y0), 2)],
        "category_id": 1 + annotation_id % NUM_CATEGORIES,
        "id": annotation_id,
    }
