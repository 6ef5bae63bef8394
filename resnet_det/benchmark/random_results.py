"""Random ground truth and results in COCO's formats: objects that are found, missed, misplaced, confused, doubled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

HEIGHT, WIDTH = 480, 640


def random_results(seed: int, *, num_images: int, per_image: int = 20) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth of about 6 objects an image, some of them crowds, and ``per_image`` results with boxes and masks.

    Image and category ids have gaps, and some scores are equal.
    """
    rng = np.random.default_rng(seed)
    image_ids = sorted(rng.choice(10 * num_images, num_images, replace=False) + 1000)
    category_ids = [2, 3, 7, 11, 20]
    content: dict[str, Any] = {
        "images": [
            {"id": int(i), "file_name": f"{i:06d}.jpg", "height": HEIGHT, "width": WIDTH} for i in image_ids[::-1]
        ],
        "annotations": [],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids[::-1]],
    }
    results = []
    for image in content["images"]:
        objects = [(random_box(rng), int(rng.choice(category_ids))) for _ in range(rng.poisson(6))]
        for box, category_id in objects:
            is_crowd = bool(rng.random() < 0.1)
            polygon = random_polygon(rng, box)
            annotation = {
                "id": len(content["annotations"]) + 5,
                "image_id": image["id"],
                "category_id": category_id,
                "bbox": box,
                "area": 0.75 * box[2] * box[3],
                "iscrowd": int(is_crowd),
                "segmentation": encode(polygon) if is_crowd else [polygon],
            }
            content["annotations"].append(annotation)
        for _ in range(per_image):
            box, category_id = random_box(rng), int(rng.choice(category_ids))
            score = rng.beta(1, 5)
            if objects and rng.random() < 0.5:
                box, category_id = objects[rng.integers(len(objects))]
                x, y, w, h = box + rng.normal(0, 0.08, 4) * np.array([box[2], box[3], box[2], box[3]])
                x, y = max(x, 0.0), max(y, 0.0)
                box = [float(v) for v in (x, y, min(max(w, 3), WIDTH - x), min(max(h, 3), HEIGHT - y))]
                score = rng.beta(4, 3)
                if rng.random() < 0.2:
                    category_id = int(rng.choice(category_ids))
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": category_id,
                    "bbox": box,
                    "score": round(float(score), 3),  # so that scores repeat
                    "segmentation": encode(random_polygon(rng, box)),
                }
            )
    return content, results


def random_box(rng: np.random.Generator) -> list[float]:
    width, height = np.exp(rng.uniform(np.log(10), np.log(300), 2))
    return [float(v) for v in (rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height), width, height)]


def random_polygon(rng: np.random.Generator, box: list[float]) -> list[float]:
    x, y, width, height = box
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radius = 1 + 0.1 * rng.standard_normal(20)
    points = np.stack([x + width * (1 + radius * np.cos(angle)) / 2, y + height * (1 + radius * np.sin(angle)) / 2], 1)
    return np.clip(points, 0, [WIDTH, HEIGHT]).ravel().tolist()


def encode(polygon: list[float]) -> dict[str, Any]:
    runs = mask_util.frPyObjects([polygon], HEIGHT, WIDTH)[0]
    return {**runs, "counts": runs["counts"].decode()}
