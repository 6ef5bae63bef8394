"""Random ground truth and results in COCO's formats: objects that are found, missed, misplaced, confused, doubled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

HEIGHT, WIDTH = 480, 640


def random_results(seed: int, *, num_images: int, per_image: int = 20) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth with crowds, and results with boxes and masks; image and category ids have gaps."""
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


def random_keypoints(
    seed: int, *, num_keypoints: int, num_images: int = 20
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """People with keypoints, some without any labelled, and results for them."""
    content, results = random_results(seed, num_images=num_images, per_image=12)
    rng = np.random.default_rng(seed)
    content["categories"] = [{"id": 1, "name": "person"}]
    truth: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        points = random_points(rng, annotation["bbox"], num_keypoints)
        points[:, 2] = rng.integers(0, 3, num_keypoints) * (rng.random() < 0.9)
        annotation |= {"category_id": 1, "keypoints": points.ravel().tolist()}
        annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
        truth.setdefault(annotation["image_id"], []).append(annotation)
    for row in results:
        near = truth.get(row["image_id"], [])
        points = random_points(rng, row["bbox"], num_keypoints)
        if near and rng.random() < 0.7:
            meant = near[rng.integers(len(near))]
            points = np.reshape(meant["keypoints"], (-1, 3)).astype(float)
            points[:, :2] += rng.normal(0, 0.04, (num_keypoints, 2)) * meant["bbox"][2:]
            row["bbox"] = meant["bbox"]
        row |= {"category_id": 1, "keypoints": points.ravel().tolist()}
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


def random_points(rng: np.random.Generator, box: list[float], count: int) -> np.ndarray:
    x, y, width, height = box
    return np.stack([x + rng.random(count) * width, y + rng.random(count) * height, np.full(count, 2.0)], axis=1)


def encode(polygon: list[float]) -> dict[str, Any]:
    runs = mask_util.frPyObjects([polygon], HEIGHT, WIDTH)[0]
    return {**runs, "counts": runs["counts"].decode()}
