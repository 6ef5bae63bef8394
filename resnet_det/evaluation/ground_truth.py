"""The objects of a COCO data set, in columns, and as the evaluation library takes them."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import hotcoco
import numpy as np

from resnet_det.data.coco import CocoData, Usage
from resnet_det.data.coco.keypoints import Keypoints, find_keypoints
from resnet_det.errors import InputError

KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # of annotations and results


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The usable annotations of a file, in its order.

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
    keypoints: Keypoints | None = None  # what the categories say of them
    usage: Usage | None = None

    @property
    def class_names(self) -> list[str]:
        return [category["name"] for category in self.categories]

    def has(self, iou_type: str) -> bool:
        """Whether there is anything for that kind of evaluation."""
        return iou_type == "bbox" or any(KEYS[iou_type] in annotation for annotation in self.annotations)

    def for_task(self, iou_type: str) -> GroundTruth:
        """The same objects for one kind of evaluation.

        An object without a mask is ignored where masks are evaluated, as a crowd region of the size of its box: what
        is found there is neither right nor wrong. One without keypoints has none that is labelled, which COCO ignores.
        """
        if iou_type == "bbox":
            return self
        return self._for_masks if iou_type == "segm" else self._for_keypoints

    @cached_property
    def _for_masks(self) -> GroundTruth:
        lacking = np.array(["segmentation" not in annotation for annotation in self.annotations], dtype=bool)
        if not lacking.any():
            return self
        annotations = list(self.annotations)
        for row in np.flatnonzero(lacking).tolist():
            x, y, width, height = self.box[row].tolist()
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations[row] = {**annotations[row], "segmentation": [corners]}
        return replace(self, annotations=annotations, crowd=self.crowd | lacking)

    @cached_property
    def _for_keypoints(self) -> GroundTruth:
        if all("keypoints" in annotation for annotation in self.annotations):
            return self
        nothing = [0.0] * 3 * len(self.keypoints or ())
        return replace(self, annotations=[{"keypoints": nothing, **annotation} for annotation in self.annotations])

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
        sizes = [(image["height"], image["width"]) for image in self.images]
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
            self.box.tolist(),
            self.image.tolist(),
            self.category.tolist(),
            self.area.tolist(),
            self.crowd.tolist(),
            strict=True,
        )
        annotations = [
            {
                **annotation,
                "bbox": box,
                "id": number,
                "image_id": image + 1,
                "category_id": category + 1,
                "area": area,
                "iscrowd": int(crowd),
            }
            for number, (annotation, box, image, category, area, crowd) in enumerate(columns, start=1)
        ]
        for annotation in annotations:
            if "keypoints" in annotation:
                annotation.setdefault("num_keypoints", sum(v > 0 for v in annotation["keypoints"][2::3]))
        return hotcoco.COCO({"images": images, "categories": categories, "annotations": annotations})


def make_ground_truth(data: CocoData, image_ids: Collection[Hashable] | None = None) -> GroundTruth:
    """The ground truth in what was read of a COCO annotation file; with ``image_ids``, of these images alone."""
    rows = np.arange(len(data.annotations))
    images, image, chosen = data.images, data.image, None
    if image_ids is not None:
        chosen = np.array([entry["id"] in image_ids for entry in images], dtype=bool)
        images = [entry for entry, is_chosen in zip(images, chosen, strict=True) if is_chosen]
        rows = np.flatnonzero(chosen[image])
        image = (np.cumsum(chosen) - 1)[image[rows]]
    try:
        keypoints = find_keypoints(data)
    except InputError:  # categories with different numbers of them, which nobody may have asked for
        keypoints = None
    annotations = [_make_row(data, row) for row in rows.tolist()]
    return GroundTruth(
        images=images,
        categories=data.categories,
        annotations=annotations,
        image=image,
        category=data.category[rows],
        box=data.box[rows],
        area=data.area[rows],
        crowd=data.crowd[rows],
        keypoints=keypoints,
        usage=data.count_use(chosen),
    )


def _make_row(data: CocoData, row: int) -> dict[str, Any]:
    """An annotation as COCO has it, with what can be used of its mask and keypoints."""
    entry = {"id": data.annotations[row].id, "bbox": data.annotations[row].bbox}
    mask, keypoints = data.mask(row), data.keypoints(row)
    return (
        entry
        | ({} if mask is None else {"segmentation": mask})
        | ({} if keypoints is None else {"keypoints": keypoints})
    )
