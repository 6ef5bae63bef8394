"""COCO annotation files as a data set in YOLO's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from pycocotools import mask as mask_util

from resnet_det.data.coco.keypoints import find_flip_pairs, find_keypoints
from resnet_det.data.formats.export import ExportedSet, clip_box, place_images
from resnet_det.data.formats.outlines import join_outlines, trace_outlines
from resnet_det.data.formats.shapes import Point, clip_polygon, outline_box
from resnet_det.errors import InputError

TASKS = ("detect", "segment", "pose")
DIGITS = 10  # of a share of the image's sides: the very pixels come back


def write_yolo(sets: Sequence[ExportedSet], folder: Path, task: str) -> Path:
    """Write ``data.yaml``, ``images/<split>/`` and ``labels/<split>/`` for Ultralytics.

    Lines are ``class cx cy w h`` (detect), ``class x0 y0 x1 y1 ...`` (segment), or a box and x, y, visibility of each
    keypoint (pose), in shares of the image's sides. Crowd regions are left out, as the format has none.

    Args:
        folder: new and empty.
        task: one of ``TASKS``.

    Returns:
        The path of data.yaml.

    Raises:
        InputError: the objects have no masks to segment, or no keypoints.
    """
    data = sets[0].data
    content = {f"{one.name}": f"images/{one.name}" for one in sets}
    content["names"] = dict(enumerate(data.class_names))
    num_keypoints = 0
    if task == "pose":
        keypoints = find_keypoints(data)
        if keypoints is None:
            raise InputError(f"{data.path}: no object has keypoints; --task detect would be right")
        num_keypoints = len(keypoints)
        places = {name: place for place, name in enumerate(keypoints.names)}
        flipped = list(range(num_keypoints))
        for first, second in find_flip_pairs(keypoints.names):
            flipped[places[first]], flipped[places[second]] = places[second], places[first]
        content |= {"kpt_shape": [num_keypoints, 3], "flip_idx": flipped}
        content["kpt_names"] = {number: list(keypoints.names) for number in range(len(data.class_names))}
    if task == "segment" and not any(one.data.has_masks() for one in sets):
        raise InputError(f"{data.path}: no object has a mask; --task detect would be right")
    for one in sets:
        place_images(one, folder / "images" / one.name, flat=False, taken=set())
        for place, rows in one.objects_of():
            lines = [line for row in rows if (line := _write_object(one, row, task, num_keypoints)) is not None]
            path = (folder / "labels" / one.name / one.file_names[place]).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _write_object(one: ExportedSet, row: int, task: str, num_keypoints: int) -> str | None:
    data = one.data
    if data.crowd[row]:
        one.counts["crowd regions: left out, as the format has none"] += 1
        return None
    height, width = data.sizes[data.image[row]].tolist()
    x0, y0, x1, y1 = clip_box(one, row)
    if task == "segment":
        outline = _outline(one, row, (width, height)) or outline_box([(x0, y0), (x1, y1)])
        numbers = [number for px, py in outline for number in (px / width, py / height)]
    else:
        if data.mask(row) is not None:
            one.counts[f"masks: left out by --task {task}"] += 1
        numbers = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    if task == "pose":
        numbers += _keypoints(one, row, num_keypoints, (width, height))
    return " ".join([str(int(data.category[row])), *(f"{round(number, DIGITS):.11g}" for number in numbers)])


def _outline(one: ExportedSet, row: int, size: tuple[int, int]) -> list[Point]:
    """The mask of an object as one polygon in the image; [] if there is none."""
    mask = one.data.mask(row)
    if mask is None:
        one.counts["objects without a mask: the box is their outline"] += 1
        return []
    if isinstance(mask, dict):
        outlines, holes = trace_outlines(mask_util.decode(mask))
        one.counts["masks of run lengths: outlined along their pixels"] += 1
        one.counts["holes in masks: filled"] += holes
    else:
        outlines = [list(zip(polygon[::2], polygon[1::2], strict=True)) for polygon in mask]
    outlines = [clipped for clipped in (clip_polygon(outline, size) for outline in outlines) if clipped]
    if len(outlines) > 1:
        one.counts["masks of several parts: joined by lines without width"] += 1
    return join_outlines(outlines) if outlines else []


def _keypoints(one: ExportedSet, row: int, count: int, size: tuple[int, int]) -> list[float]:
    points = one.data.keypoints(row)
    if points is None:
        one.counts["objects without keypoints: all are written as not labelled"] += 1
        return [0.0] * 3 * count
    numbers = []
    for x, y, visibility in zip(points[::3], points[1::3], points[2::3], strict=True):
        inside = min(max(x, 0), size[0]), min(max(y, 0), size[1])
        if visibility > 0 and inside != (x, y):
            one.counts["keypoints outside their image: clipped"] += 1
        numbers += [inside[0] / size[0], inside[1] / size[1], int(visibility)] if visibility > 0 else [0.0, 0.0, 0]
    return numbers
