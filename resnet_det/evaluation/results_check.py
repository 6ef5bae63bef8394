"""Results files in COCO's format: read, and told apart from what is often mistaken for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.data.coco.json_files import read_json
from resnet_det.data.coco.masks import is_rle_text, read_mask
from resnet_det.errors import InputError
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.ground_truth import KEYS, GroundTruth
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.prediction_folder import read_predictions
from resnet_det.evaluation.results_forms import normalise_results

logger = logging.getLogger(__name__)

FORMAT = "a list of objects with image_id, category_id, score and bbox, segmentation or keypoints would be right"
OTHER_SET_SHARE = 0.5  # with more than these of unknown images, all are of another data set
OUTSIDE_TOLERANCE, OUTSIDE_SHARE = 0.05, 0.05  # of the image size that a box may stick out; of boxes that may do more
MIN_PAIRS, MIN_AGREEMENT, MAX_AGREEMENT = 20, 0.5, 0.1  # overlapping pairs; share with one class, shifted and as it is


def read_results(path: Path, truth: GroundTruth, iou_types: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Detections from a file in COCO's result format, or from a folder of tools/predict.py.

    Args:
        iou_types: what they must have something for; that of which the first has something, if empty.

    Raises:
        InputError: they are none, or not those of ``truth``: see :func:`check_results`.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    results = normalise_results(read_predictions(path) if path.is_dir() else read_json(path), truth)
    try:
        check_results(results, truth, iou_types)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return results


def find_iou_types(results: Any, truth: GroundTruth) -> list[str]:
    """The kinds of evaluation that the first result and any annotation have something for; if none, boxes, or masks
    where there are no annotations and the first result has only a mask."""
    first = results[0] if isinstance(results, list) and results and isinstance(results[0], dict) else {}
    found = [name for name, key in KEYS.items() if key in first and truth.has(name)]
    is_mask_alone = "segmentation" in first and "bbox" not in first
    return found or (["segm"] if is_mask_alone and not truth.annotations else ["bbox"])


def check_results(results: Any, truth: GroundTruth, iou_types: Sequence[str] = ()) -> None:
    """Find what is wrong with results, the first and largest thing first.

    Raises:
        InputError: results of another form, unknown images or categories, scores that are no numbers, boxes as corners
            or fractions, categories as indices, masks of another size.
    """
    iou_types = iou_types or find_iou_types(results, truth)
    _check_form(results, iou_types)
    if not results:
        return
    _check_scores(results)
    _check_images(results, truth)
    for iou_type in iou_types:
        _CHECKS[iou_type](results, truth)
    has_boxes = all("bbox" in row for row in results)
    if has_boxes and "bbox" not in iou_types:
        _check_boxes(results, truth)
    _check_categories(results, truth, has_boxes=has_boxes)


def _check_form(results: Any, iou_types: Sequence[str]) -> None:
    if isinstance(results, dict):
        if "annotations" in results:
            raise InputError(f"an annotation file, not results; {FORMAT}")
        raise InputError(f"an object with {', '.join(list(map(str, results))[:3])} ...; {FORMAT}")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise InputError(f"not in COCO's result format; {FORMAT}")
    for key in ("image_id", "category_id"):
        wrong = [n for n, row in enumerate(results) if isinstance(row.get(key), (list, dict, bool))]
        if wrong:
            raise InputError(
                f"{_count(wrong, results)} a {key} that is no id (the first: number {wrong[0]}, counted from 0, {key} "
                f"{results[wrong[0]][key]}); a number or a text would be right"
            )
    for key in ("image_id", "category_id", "score", *(KEYS[iou_type] for iou_type in iou_types)):
        lacking = [number for number, row in enumerate(results) if key not in row]
        if lacking:
            raise InputError(
                f"{_count(lacking, results)} no {key} (the first: number {lacking[0]}, counted from 0); {FORMAT}"
            )


def _check_scores(results: list[dict[str, Any]]) -> None:
    wrong = [n for n, row in enumerate(results) if not _is_number(row["score"])]
    if wrong:
        raise InputError(
            f"{_count(wrong, results)} a score that is no finite number (the first: number {wrong[0]}, counted from 0, "
            f"score {results[wrong[0]]['score']}); the model that made them has diverged, or they were made wrongly"
        )
    scores = np.array([row["score"] for row in results])
    if scores.min() < 0 or scores.max() > 1:
        logger.warning(
            "Scores reach from %.4g to %.4g; AP takes any, but from 0 to 1 is usual", scores.min(), scores.max()
        )


def _check_images(results: list[dict[str, Any]], truth: GroundTruth) -> None:
    unknown = [row["image_id"] for row in results if _not_in(row["image_id"], truth.image_places)]
    if not unknown:
        return
    examples = _examples(unknown)
    as_text = {str(key) for key in truth.image_places}
    if all(str(key) in as_text for key in unknown):
        known = next(iter(truth.image_places))
        raise InputError(
            f"image_id is a {type(unknown[0]).__name__}, such as {unknown[0]!r}, where the annotations have a "
            f"{type(known).__name__}, such as {known!r}"
        )
    if len(unknown) > OTHER_SET_SHARE * len(results):
        raise InputError(
            f"of another data set: {len(unknown)} of {len(results)} results are for images that are not among the "
            f"{len(truth.images)} of the annotations (such as image_id {examples})"
        )
    raise InputError(f"{_count(unknown, results)} an image_id that the annotations do not have (such as {examples})")


def _check_boxes(results: list[dict[str, Any]], truth: GroundTruth) -> None:
    wrong = [n for n, row in enumerate(results) if not _are_numbers(row["bbox"], 4)]
    if wrong:
        raise InputError(
            f"{_count(wrong, results)} a bbox that is not [x, y, width, height] (the first: number {wrong[0]}, counted "
            f"from 0, bbox {results[wrong[0]]['bbox']})"
        )
    box = np.array([row["bbox"] for row in results], dtype=float)
    height, width = truth.size[[truth.image_places[row["image_id"]] for row in results]].T
    known = (height > 0) & (width > 0)
    if known.all() and np.abs(box).max() <= 1.5 and min(height.min(), width.min()) > 10:
        raise InputError("bbox in fractions of the image; pixels, as [x, y, width, height], would be right")
    slack_x, slack_y = OUTSIDE_TOLERANCE * width, OUTSIDE_TOLERANCE * height
    sticks_out = known & ((box[:, 0] + box[:, 2] > width + slack_x) | (box[:, 1] + box[:, 3] > height + slack_y))
    fits_as_corners = ~known | ((box[:, 2] <= width + slack_x) & (box[:, 3] <= height + slack_y))
    ordered = (box[:, 2] >= box[:, 0]) & (box[:, 3] >= box[:, 1])
    if ordered.all() and fits_as_corners.all() and sticks_out.mean() > OUTSIDE_SHARE:
        raise InputError(
            f"bbox as corners [x1, y1, x2, y2]: read as [x, y, width, height], which would be right, "
            f"{sticks_out.sum()} of {len(results)} boxes reach out of their images"
        )
    negative = np.flatnonzero((box[:, 2:] < 0).any(axis=1))
    if len(negative):
        raise InputError(
            f"{_count(negative, results)} a negative width or height (the first: number {negative[0]}, counted from 0, "
            f"bbox {results[negative[0]]['bbox']}); [x, y, width, height] would be right"
        )
    if sticks_out.mean() > OTHER_SET_SHARE:
        raise InputError(
            f"{sticks_out.sum()} of {len(results)} boxes reach out of their images: made for images of another size, "
            "or of another data set"
        )


def _check_masks(results: list[dict[str, Any]], truth: GroundTruth) -> None:
    for number, row in enumerate(results):
        mask = row["segmentation"]
        size = truth.size[truth.image_places[row["image_id"]]].astype(int).tolist()
        has_size = isinstance(mask, dict) and "counts" in mask and mask.get("size") in (size, tuple(size), [0, 0])
        if has_size and is_rle_text(mask["counts"]):  # what nearly all are; others are read as annotations are
            continue
        if isinstance(mask, dict) and "counts" in mask and not has_size and min(size) > 0:
            raise InputError(
                f"number {number}, counted from 0: a mask of {mask.get('size')} (height, width) for image "
                f"{row['image_id']!r}, which is {size}: of another size, or of another data set"
            )
        if not isinstance(mask, list) and not (isinstance(mask, dict) and "counts" in mask):
            raise InputError(
                f"number {number}, counted from 0: segmentation is neither run lengths (size, counts) nor polygons"
            )
        read = read_mask(mask, *size)
        if read.value is None or read.kind:
            raise InputError(f"number {number}, counted from 0: {read.message or f'its segmentation is {mask!r}'}")


def _check_keypoints(results: list[dict[str, Any]], truth: GroundTruth) -> None:  # noqa: ARG001 (as the others)
    wrong = [n for n, row in enumerate(results) if not _are_numbers(row["keypoints"]) or len(row["keypoints"]) % 3]
    if wrong:
        raise InputError(
            f"{_count(wrong, results)} keypoints that are not [x, y, score, ...] in finite numbers (the first: number "
            f"{wrong[0]}, counted from 0)"
        )


def _check_categories(results: list[dict[str, Any]], truth: GroundTruth, *, has_boxes: bool) -> None:
    known = list(truth.category_places)
    unknown = [row["category_id"] for row in results if _not_in(row["category_id"], truth.category_places)]
    used = {row["category_id"] for row in results}
    if not unknown and not all(isinstance(value, int) for value in known):
        return
    if not all(isinstance(value, int) for value in (*used, *known)):
        names = set(truth.class_names)
        what = "class names" if used <= names else "no whole numbers"
        raise InputError(f"category_id: {what} (such as {_examples(used)}); ids such as {_examples(known)} are right")
    shifts = [start for start in (0, 1, 2) if all(0 <= value - start < len(known) for value in used)]
    shifts = [start for start in shifts if any(known[value - start] != value for value in used)]
    if unknown and not shifts:
        raise InputError(
            f"{_count(unknown, results)} a category_id that the annotations do not have (such as "
            f"{_examples(unknown)}; theirs are {_examples(known)}): of another data set?"
        )
    if unknown:
        start = 0 if 0 in used and 0 in shifts else shifts[0]
    else:
        start = _find_shift(results, truth, known, shifts) if has_boxes else None
    if start is not None:
        raise InputError(
            f"category_id: indices, counted from {start}, instead of ids: {_examples(sorted(used))}, where the "
            f"annotations have {_examples(known)}"
            + ("" if unknown else "; shifted like this, nearly all classes would agree with the objects found")
        )


def _find_shift(
    results: list[dict[str, Any]], truth: GroundTruth, known: Sequence[int], shifts: Iterable[int]
) -> int | None:
    """The start of counting with which the classes of what was found agree, where as ids hardly any does."""
    detections = make_detections(results, truth)
    overlaps = compute_overlaps(truth, detections, "bbox")
    pairs = (overlaps.iou >= 0.5) & ~truth.crowd[overlaps.annotation]
    given = np.array([row["category_id"] for row in detections.rows])[overlaps.detection[pairs]]
    right = np.array(known)[truth.category[overlaps.annotation[pairs]]]
    if len(given) < MIN_PAIRS or (given == right).mean() > MAX_AGREEMENT:
        return None
    agreement = {start: (np.array(known)[given - start] == right).mean() for start in shifts}
    best = max(agreement, key=agreement.get, default=None)
    return best if best is not None and agreement[best] >= MIN_AGREEMENT else None


_CHECKS: dict[str, Callable[[list[dict[str, Any]], GroundTruth], None]] = {
    "bbox": _check_boxes,
    "segm": _check_masks,
    "keypoints": _check_keypoints,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any, count: int | None = None) -> bool:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return False
    return all(type(value) in (int, float) and -1e300 < value < 1e300 for value in values)  # NaN is in no range


def _not_in(key: Any, places: dict[Any, int]) -> bool:
    return isinstance(key, (list, dict)) or key not in places


def _count(wrong: Sequence[Any], results: Sequence[Any]) -> str:
    return f"{len(wrong)} of {len(results)} results {'has' if len(wrong) == 1 else 'have'}"


def _examples(values: Iterable[Any]) -> str:
    return ", ".join(map(str, list(dict.fromkeys(map(str, values)))[:3]))
