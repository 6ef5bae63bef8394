"""From results files to counts and areas of each image and class, for tools/count_objects.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.data.coco import CocoData, judge_content, read_coco
from resnet_det.errors import InputError
from resnet_det.evaluation.agreement import Agreement, measure_agreement
from resnet_det.evaluation.counting import MAX_NAMED, Counts, count_detections, count_objects, find_countable
from resnet_det.evaluation.detections import Detections, make_detections
from resnet_det.evaluation.files import check_other_images, read_detections, read_truth
from resnet_det.evaluation.ground_truth import GroundTruth, make_ground_truth
from resnet_det.evaluation.prediction_folder import list_result_files, read_manifest, read_rows
from resnet_det.evaluation.results_check import check_results, read_results
from resnet_det.evaluation.results_forms import normalise_results
from resnet_det.evaluation.thresholds import ON_THESE_IMAGES, find_curves

logger = logging.getLogger(__name__)

QUANTITIES = ("count", "total_area_px2", "mean_area_px2")


@dataclass(frozen=True, eq=False)
class Counting:
    """What was counted, and how far it is from the truth where that is known.

    Attributes:
        truth: the images and classes, with annotations or without.
        found, true: counts; ``true`` is None without annotations.
        countable: (images, classes) bool: where the true count is known.
        thresholds: of each class, the lowest score that counts; ``source`` says where they come from.
        by_mask: areas are those of masks, else of boxes.
    """

    truth: GroundTruth
    found: Counts
    true: Counts | None
    countable: np.ndarray
    thresholds: list[float]
    source: str
    by_mask: bool

    @cached_property
    def agreements(self) -> list[dict[str, Agreement]]:
        """Of each class, by ``QUANTITIES``; empty without annotations."""
        if self.true is None:
            return []
        return [
            {quantity: measure_agreement(*self.pairs(place, quantity)) for quantity in QUANTITIES}
            for place in range(len(self.truth.categories))
        ]

    def pairs(self, place: int, quantity: str) -> tuple[np.ndarray, np.ndarray]:
        """(n,), (n,): true and counted numbers of the class at ``place``; mean areas where both have objects."""
        columns = [_column(counts, place, quantity) for counts in (self.true, self.found)]
        known = self.countable[:, place] & np.isfinite(columns[0]) & np.isfinite(columns[1])
        return columns[0][known], columns[1][known]


def count_files(
    results: Path,
    annotations: Path | None,
    *,
    score_threshold: float | None = None,
    threshold_from: tuple[Path, Path] | None = None,
    crowd_as_objects: bool = False,
) -> Counting:
    """Count the detections of each image and class.

    Args:
        results: in COCO's format, or a folder of tools/predict.py.
        annotations: a COCO file that names images and classes, and has the truth if it has annotations; None: what the
            folder of predictions says.
        score_threshold: the lowest score that counts; None: of each class the one with the best F1.
        threshold_from: the annotation file and the results by which that is chosen; None: those that are counted.
        crowd_as_objects: crowd regions are ordinary objects.

    Raises:
        InputError: a file cannot be used, or there is nothing to choose a threshold by.
    """
    if annotations is not None and threshold_from is not None:
        check_other_images(annotations, threshold_from[0])
    predicted = _read_predicted(results) if results.is_dir() else None
    data = _read_images(results, annotations, predicted, crowd_as_objects)
    truth = make_ground_truth(data)
    if predicted is not None:
        truth = _leave_out_unpredicted(truth, data, predicted, results)
    if not truth.images:
        raise InputError(f"{results}: no image is left to count")
    is_known = len(data.annotations) > 0
    by_mask, detections = _read_detections(results, truth, is_known=is_known)
    thresholds, source = _choose_thresholds(
        truth, detections, score_threshold, threshold_from, crowd_as_objects, is_known=is_known, by_mask=by_mask
    )
    _check_kept(results, thresholds)
    return Counting(
        truth=truth,
        found=count_detections(truth, detections, thresholds, by_mask=by_mask),
        true=count_objects(truth, by_mask=by_mask) if is_known else None,
        countable=find_countable(truth),
        thresholds=thresholds,
        source=source,
        by_mask=by_mask,
    )


def tabulate_counts(counting: Counting, pixel_size_um: float | None = None) -> Iterator[dict[str, object]]:
    """A row of each image and class, for CSV. Mean areas of no objects, and true counts that crowd regions hide, are
    empty.

    Args:
        pixel_size_um: micrometres that the side of a pixel is long, for areas in square micrometres.
    """
    truth = counting.truth
    for place, image in enumerate(truth.images):
        for category, name in enumerate(truth.class_names):
            row: dict[str, object] = {"image": image["file_name"], "class": name}
            row |= _cells(counting.found, place, category, "", pixel_size_um)
            if counting.true is not None:
                cells = _cells(counting.true, place, category, "true_", pixel_size_um)
                row |= cells if counting.countable[place, category] else dict.fromkeys(cells, "")
            yield row


def _cells(counts: Counts, image: int, category: int, prefix: str, pixel_size_um: float | None) -> dict[str, object]:
    count, total = int(counts.count[image, category]), float(counts.area_px2[image, category])
    cells: dict[str, object] = {f"{prefix}count": count}
    for unit, scale in (("px2", 1.0), ("um2", pixel_size_um and pixel_size_um**2)):
        if scale is not None:
            cells[f"{prefix}total_area_{unit}"] = f"{total * scale:.10g}"
            cells[f"{prefix}mean_area_{unit}"] = f"{total * scale / count:.10g}" if count else ""
    return cells


def _column(counts: Counts, place: int, quantity: str) -> np.ndarray:
    values = {"count": counts.count, "total_area_px2": counts.area_px2, "mean_area_px2": counts.mean_area_px2}
    return values[quantity][:, place].astype(float)


def _read_predicted(folder: Path) -> list[dict[str, Any]]:
    """The images of a folder of predictions that could be read, as COCO has them, with their names as ids."""
    images, num_bad = [], 0
    for file in list_result_files(folder)[1]:
        for row in read_rows(file):
            num_bad += row["error"] is not None
            if row["error"] is None:
                images.append({"id": row["file_name"], **{key: row[key] for key in ("file_name", "height", "width")}})
    if num_bad:
        logger.warning("%s: %d images could not be read: left out", folder, num_bad)
    return images


def _read_images(
    results: Path, annotations: Path | None, predicted: list[dict[str, Any]] | None, crowd_as_objects: bool
) -> CocoData:
    if annotations is not None:
        data = read_coco(annotations, crowd_as_objects=crowd_as_objects)
        data.raise_problems(str(annotations))
        for line in data.describe_warnings():
            logger.warning("%s: %s", annotations, line)
        return data
    if predicted is None:
        raise InputError(
            f"{results}: results do not name their images and classes: give --annotations, such as the images.json "
            "that tools/visualize.py writes beside results"
        )
    data = judge_content({"images": predicted, "annotations": [], "categories": read_manifest(results)["classes"]})
    data.raise_problems(str(results))
    return data


def _leave_out_unpredicted(
    truth: GroundTruth, data: CocoData, predicted: list[dict[str, Any]], results: Path
) -> GroundTruth:
    """Without the images that the folder has no predictions of: they would count as images without objects."""
    names = [{"image_id": image["file_name"]} for image in predicted]
    known = {row["image_id"] for row in normalise_results(names, truth)}
    lacking = [image["file_name"] for image in truth.images if image["id"] not in known]
    if not lacking:
        return truth
    logger.warning(
        "%s: no predictions of %d of %d images of the annotations (such as %s): left out",
        results,
        len(lacking),
        len(truth.images),
        ", ".join(lacking[:MAX_NAMED]),
    )
    return make_ground_truth(data, known)


def _read_detections(results: Path, truth: GroundTruth, *, is_known: bool) -> tuple[bool, Detections]:
    """Whether masks are measured, and the detections."""
    rows = read_results(results, truth)
    has_masks = bool(rows) and "segmentation" in rows[0]
    if has_masks and not is_known:
        try:
            check_results(rows, truth, ["segm"])
        except InputError as error:
            raise InputError(f"{results}: {error}") from None
    return has_masks and (truth.has("segm") or not is_known), make_detections(rows, truth)


def _choose_thresholds(
    truth: GroundTruth,
    detections: Detections,
    score_threshold: float | None,
    threshold_from: tuple[Path, Path] | None,
    crowd_as_objects: bool,
    *,
    is_known: bool,
    by_mask: bool,
) -> tuple[list[float], str]:
    """The threshold of each class, and where they come from."""
    names = truth.class_names
    if score_threshold is not None:
        return [score_threshold] * len(names), "given"
    if threshold_from is not None:
        other = read_truth(threshold_from[0], None, crowd_as_objects=crowd_as_objects)
        iou_type = "segm" if by_mask and other.has("segm") else "bbox"
        known, unfound = _find_best(other, read_detections(threshold_from[1], other, [iou_type]), iou_type)
        lacking = [name for name in names if name not in known]
        if lacking:
            raise InputError(
                f"--threshold-from {threshold_from[0]}: it has no class {', '.join(lacking[:MAX_NAMED])}, whose "
                "threshold is wanted; name data with the same classes, or give --score-threshold"
            )
        return [known[name] for name in names], f"best F1 of each class on {threshold_from[0]}{_tell_unfound(unfound)}"
    if not is_known:
        raise InputError(
            "without annotations of objects there is nothing to choose a score threshold by: give --score-threshold, "
            "or --threshold-from ANNOTATIONS RESULTS of a validation set"
        )
    known, unfound = _find_best(truth, detections, "segm" if by_mask else "bbox")
    return [known[name] for name in names], f"best F1 of each class: {ON_THESE_IMAGES}{_tell_unfound(unfound)}"


def _find_best(truth: GroundTruth, detections: Detections, iou_type: str) -> tuple[dict[str, float], list[str]]:
    """The score of the best F1 at IoU 0.5 by class name, with all detections, and the classes that none finds, whose
    score is the median of the others.

    Raises:
        InputError: no detection finds anything.
    """
    curves = find_curves(truth, detections, iou_type, max_detections=max(len(detections), 1))
    best = np.array([curve.best_threshold for curve in curves])
    if np.isnan(best).all():
        raise InputError("no detection finds an object, so that no score threshold is the best: give --score-threshold")
    is_unfound = np.isnan(best)
    best[is_unfound] = np.nanmedian(best)
    unfound = [name for name, is_one in zip(truth.class_names, is_unfound, strict=True) if is_one]
    if unfound:
        logger.warning("No score threshold can be chosen for some classes%s", _tell_unfound(unfound))
    return dict(zip(truth.class_names, best.tolist(), strict=True)), unfound


def _tell_unfound(names: Sequence[str]) -> str:
    return f"; the median of the other classes for {', '.join(names)}, of which no object was found" if names else ""


def _check_kept(results: Path, thresholds: Sequence[float]) -> None:
    """
    Raises:
        InputError: detections that should be counted were not kept when the folder was made.
    """
    if not results.is_dir():
        return
    kept = read_manifest(results)["confidence_threshold"]
    if min(thresholds, default=kept) < kept:
        raise InputError(
            f"{results}: has only detections with a score of at least {kept:g}, and those from {min(thresholds):.3g} "
            f"on are to be counted: predict with a lower --confidence-threshold, or give --score-threshold {kept:g}"
        )
