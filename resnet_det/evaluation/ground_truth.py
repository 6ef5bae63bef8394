"""The objects of a COCO data set, in columns, and as the evaluation library takes them."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import hotcoco
import numpy as np


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotations of images and categories that are listed, in the order of the file.

    Images and categories are counted from 0 in the order of their ids, which is the order in which COCO's evaluation
    goes through them. Boxes are [x, y, width, height] in pixels.
    """

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    image: np.ndarray  # (n,)
    category: np.ndarray  # (n,)
    box: np.ndarray  # (n, 4)
    area: np.ndarray  # (n,)
    crowd: np.ndarray  # (n,) bool

    @property
    def class_names(self) -> list[str]:
        return [str(category.get("name", category["id"])) for category in self.categories]

    @cached_property
    def image_places(self) -> dict[Hashable, int]:
        """The place of each image by its id."""
        return {image["id"]: place for place, image in enumerate(self.images)}

    @cached_property
    def category_places(self) -> dict[Hashable, int]:
        """The place of each category by its id."""
        return {category["id"]: place for place, category in enumerate(self.categories)}

    @cached_property
    def size(self) -> np.ndarray:
        """(number of images, 2): height and width in pixels; 0 where the file does not say."""
        sizes = [(image.get("height", 0), image.get("width", 0)) for image in self.images]
        return np.array(sizes, dtype=float).reshape(-1, 2)

    @cached_property
    def coco(self) -> hotcoco.COCO:
        """The same for the evaluation library, with all ids counted from 1.

        Why: ids may be of any type in the file; and to COCO's code the match with an annotation of id 0 is none.
        """
        images = [
            {"id": place + 1, "height": int(height), "width": int(width)}
            for place, (height, width) in enumerate(self.size)
        ]
        categories = [{"id": place + 1, "name": name} for place, name in enumerate(self.class_names)]
        columns = zip(
            self.annotations,
            self.image.tolist(),
            self.category.tolist(),
            self.area.tolist(),
            self.crowd.tolist(),
            strict=True,
        )
        annotations = [
            {
                **annotation,
                "id": number,
                "image_id": image + 1,
                "category_id": category + 1,
                "area": area,
                "iscrowd": int(crowd),
            }
            for number, (annotation, image, category, area, crowd) in enumerate(columns, start=1)
        ]
        for annotation in annotations:
            if "keypoints" in annotation:
                annotation.setdefault("num_keypoints", sum(v > 0 for v in annotation["keypoints"][2::3]))
        return hotcoco.COCO({"images": images, "categories": categories, "annotations": annotations})


def make_ground_truth(content: dict[str, Any], image_ids: Collection[Hashable] | None = None) -> GroundTruth:
    """The ground truth in the content of a sound COCO annotation file; with ``image_ids``, of these images alone."""
    images = [image for image in content["images"] if image_ids is None or image["id"] in image_ids]
    images.sort(key=lambda image: _order(image["id"]))
    categories = sorted(content["categories"], key=lambda category: _order(category["id"]))
    image_places = {image["id"]: place for place, image in enumerate(images)}
    category_places = {category["id"]: place for place, category in enumerate(categories)}
    annotations = [
        annotation
        for annotation in content["annotations"]
        if annotation["image_id"] in image_places and annotation["category_id"] in category_places
    ]
    box = np.array([annotation["bbox"] for annotation in annotations], dtype=float).reshape(-1, 4)
    box_area = (box[:, 2] * box[:, 3]).tolist()
    areas = [annotation.get("area", area) for annotation, area in zip(annotations, box_area, strict=True)]
    return GroundTruth(
        images=images,
        categories=categories,
        annotations=annotations,
        image=np.array([image_places[annotation["image_id"]] for annotation in annotations], dtype=np.int64),
        category=np.array([category_places[annotation["category_id"]] for annotation in annotations], dtype=np.int64),
        box=box,
        area=np.array(areas, dtype=float),
        crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=bool),
    )


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value
