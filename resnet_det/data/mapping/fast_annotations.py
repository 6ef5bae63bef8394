"""Boxes and polygons of an image, transformed together instead of one by one: Detectron2's numbers, faster."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import TransformList


def transform_annotations(
    annotations: Sequence[dict[str, Any]],
    transforms: TransformList,
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """What Detectron2's ``transform_instance_annotations`` makes of each of ``annotations``; these stay as they are.

    Args:
        transforms: those that were applied to the image.
        image_size: height and width after them.
    """
    if not all(_is_plain(annotation) for annotation in annotations):
        return [
            detection_utils.transform_instance_annotations(
                copy.deepcopy(annotation), transforms, image_size, keypoint_hflip_indices=keypoint_hflip_indices
            )
            for annotation in annotations
        ]
    boxes = transform_boxes([(a["bbox"], a["bbox_mode"]) for a in annotations], transforms, image_size)
    transformed = [
        {**annotation, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
        for annotation, box in zip(annotations, boxes, strict=True)
    ]
    with_polygons = [annotation for annotation in transformed if isinstance(annotation.get("segmentation"), list)]
    polygons = transform_polygons([annotation["segmentation"] for annotation in with_polygons], transforms)
    for annotation, parts in zip(with_polygons, polygons, strict=True):
        annotation["segmentation"] = parts
    for annotation in transformed:
        if "keypoints" in annotation:
            annotation["keypoints"] = detection_utils.transform_keypoint_annotations(
                np.array(annotation["keypoints"], dtype="float64"), transforms, image_size, keypoint_hflip_indices
            )
    return transformed


def transform_boxes(
    boxes: Sequence[tuple[list[float], BoxMode]], transforms: TransformList, image_size: tuple[int, int]
) -> list[np.ndarray]:
    """Boxes, each with its mode, as XYXY_ABS after ``transforms``, clipped to the image.

    Boxes of whole numbers are a group of their own: Detectron2 keeps them whole, while numbers with a fraction are
    added in float32.
    """
    groups: dict[tuple[bool, BoxMode], list[int]] = defaultdict(list)
    for index, (box, mode) in enumerate(boxes):
        groups[all(type(value) is int for value in box), mode].append(index)
    transformed: list[Any] = [None] * len(boxes)
    height, width = image_size
    for (is_whole, mode), indices in groups.items():
        values = np.array([boxes[index][0] for index in indices])
        if mode == BoxMode.XYWH_ABS:
            values = values if is_whole else values.astype(np.float32)
            values[:, 2:] += values[:, :2]
            values = values if is_whole else values.astype(np.float64)
        moved = np.minimum(transforms.apply_box(values).clip(min=0), [width, height, width, height])
        for index, box in zip(indices, moved, strict=True):
            transformed[index] = box
    return transformed


def transform_polygons(masks: Sequence[list[Any]], transforms: TransformList) -> list[list[np.ndarray]]:
    """Polygons of several masks after ``transforms``: for each mask a list of arrays [x0, y0, x1, y1, ...]."""
    parts = [[np.array(polygon).reshape(-1, 2) for polygon in mask] for mask in masks]
    if _moves_points_alone(transforms):
        flat = iter(_apply_together([polygon for mask in parts for polygon in mask], transforms.apply_coords))
        parts = [[next(flat) for _ in mask] for mask in parts]
    else:  # crops cut polygons
        parts = [transforms.apply_polygons(mask) for mask in parts]
    return [[polygon.reshape(-1) for polygon in mask] for mask in parts]


def _apply_together(arrays: list[np.ndarray], function: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """``function`` of each array (n, 2), called once for all of a type: whole numbers stay whole, as in Detectron2."""
    results: list[Any] = [None] * len(arrays)
    for dtype in {array.dtype for array in arrays}:
        indices = [index for index, array in enumerate(arrays) if array.dtype == dtype]
        together = function(np.concatenate([arrays[index] for index in indices]))
        ends = np.cumsum([len(arrays[index]) for index in indices])[:-1]
        for index, part in zip(indices, np.split(together, ends), strict=True):
            results[index] = part
    return results


def _moves_points_alone(tfm: T.Transform) -> bool:
    if isinstance(tfm, TransformList):
        return all(_moves_points_alone(part) for part in tfm.transforms)
    return type(tfm).apply_polygons is T.Transform.apply_polygons


def _is_plain(annotation: dict[str, Any]) -> bool:
    """Whether it is what files in COCO format give: a box of four numbers, and polygons if there is a mask."""
    box = annotation["bbox"]
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(value) in (int, float) for value in box)
        and annotation["bbox_mode"] in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        and isinstance(annotation.get("segmentation", []), list)
    )
