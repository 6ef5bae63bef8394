"""What a detector found on a COCO data set, in columns, and as the evaluation library takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from resnet_det.evaluation.ground_truth import GroundTruth

# What is handed on for each kind of evaluation. With its box, a mask would count as large as the box, not as its area;
# of keypoints the box tells the size, as in Detectron2.
_USED_KEYS = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("keypoints", "bbox")}


@dataclass(frozen=True, eq=False)
class Detections:
    """COCO results in the order of the file; images and categories are counted as in the :class:`GroundTruth`."""

    rows: list[dict[str, Any]]
    image: np.ndarray  # (n,)
    category: np.ndarray  # (n,)
    score: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.rows)

    def box(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(k, 4): boxes [x, y, width, height] in pixels of the detections ``index``; of masks and keypoints, where no
        box is given, the smallest around them."""
        rows = self.rows[index] if isinstance(index, slice) else [self.rows[i] for i in index]
        return np.array([_box(row) for row in rows], dtype=float).reshape(-1, 4)


def make_detections(results: Sequence[dict[str, Any]], truth: GroundTruth) -> Detections:
    """COCO results of known images and categories in columns; those of other images than ``truth`` has are left out."""
    rows = [row for row in results if row["image_id"] in truth.image_places]
    return Detections(
        rows=rows,
        image=np.array([truth.image_places[row["image_id"]] for row in rows], dtype=np.int64),
        category=np.array([truth.category_places[row["category_id"]] for row in rows], dtype=np.int64),
        score=np.array([row["score"] for row in rows], dtype=float),
    )


def load_detections(detections: Detections, truth: GroundTruth, iou_type: str) -> hotcoco.COCO:
    """The detections for the evaluation library."""
    keys = _USED_KEYS[iou_type]
    columns = zip(
        detections.rows,
        detections.image.tolist(),
        detections.category.tolist(),
        detections.score.tolist(),
        strict=True,
    )
    return truth.coco.load_res(
        [
            {
                "image_id": image + 1,
                "category_id": category + 1,
                "score": score,
                **{key: row[key] for key in keys if key in row},
            }
            for row, image, category, score in columns
        ]
    )


def _box(row: dict[str, Any]) -> Sequence[float]:
    if "bbox" in row:
        return row["bbox"]
    if "segmentation" in row:
        return hotcoco.mask.to_bbox(row["segmentation"])
    points = np.reshape(row["keypoints"], (-1, 3))[:, :2]
    return [*points.min(axis=0), *np.ptp(points, axis=0)]
