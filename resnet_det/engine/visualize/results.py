"""Pictures of saved results beside the ground truth of a data set."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
import tqdm
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from resnet_det.data import prepare_dataset, read_coco
from resnet_det.data.loading.coco_json import reading_rules
from resnet_det.data.mapping.fast_image import read_bgr
from resnet_det.engine.visualize.filters import find_classes
from resnet_det.engine.visualize.predictions import Summary, pass_over
from resnet_det.errors import InputError
from resnet_det.evaluation.detections import Detections, make_detections
from resnet_det.evaluation.errors import ERROR_TYPES, find_errors
from resnet_det.evaluation.ground_truth import GroundTruth, make_ground_truth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.results_check import read_results
from resnet_det.evaluation.verdicts import Verdicts, judge
from resnet_det.images.pages import stem_of
from resnet_det.visualization import (
    Skeleton,
    detections_from_annotations,
    draw_detections,
    make_skeleton,
    side_by_side,
)
from resnet_det.visualization.album import PICTURE_FORMATS, Album
from resnet_det.visualization.drawing import draw_labelled
from resnet_det.visualization.gallery import KINDS

CORRECT, MISSED = "correct", "miss"
ERROR_CHOICES = (CORRECT, *(name.lower() for name in ERROR_TYPES))
_PALETTE = sv.ColorPalette.from_hex([kind.colour for kind in KINDS.values()])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Saved results, what is right and wrong in them, and which rows are drawn."""

    truth: GroundTruth
    found: Detections
    verdicts: Verdicts | None  # None if nothing is annotated
    truth_rows: np.ndarray
    found_rows: np.ndarray
    skeleton: Skeleton
    found_types: list[str]  # the only ones of ERROR_CHOICES that are drawn of the detections; empty: all


def draw_results(
    dataset_name: str,
    results_file: Path,
    output: Path,
    *,
    min_score: float,
    num_images: int,
    classes: Collection[str] | None = None,
    error_types: Collection[str] = (),
    picture_format: str = PICTURE_FORMATS[0],
) -> Summary:
    """Write pictures with the ground truth on the left and saved predictions on the right, and gallery.html, for the
    first images of a data set. Colours tell what is right, wrong and missed at IoU 0.5 of the boxes; for a data set
    without any annotations, the class.

    Args:
        results_file: predictions in COCO's result format, with the category ids of the annotation file.
        min_score: detections below it count for nothing.
        classes: names of those that are shown; the images are then those that have them. None: all.
        error_types: of ``ERROR_CHOICES``: the images that have them. Of the detections these types alone are drawn, and
            all for ``miss`` alone.

    Raises:
        InputError: the results are missing, not in that format, or of other images or categories.
    """
    prepare_dataset(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") is None or metadata.get("evaluator_type") != "coco":
        raise InputError(f"--dataset {dataset_name}: not a data set in COCO format")
    data = read_coco(metadata.json_file, metadata.image_root, **reading_rules(dataset_name))
    truth = make_ground_truth(data)
    rows = [row for row in read_results(results_file, truth) if row["score"] >= min_score]
    chosen_classes = find_classes(classes, truth.class_names)
    skeleton = make_skeleton(metadata.get("keypoint_names"), metadata.get("keypoint_connection_rules"))
    comparison, places = _compare(truth, make_detections(rows, truth), skeleton, chosen_classes, list(error_types))
    album, summary = Album(output, picture_format), Summary()
    start = time.perf_counter()
    for place in tqdm.tqdm(places[:num_images], unit="image", desc="draw", leave=False):
        path = Path(metadata.image_root, truth.images[place]["file_name"])
        try:
            _draw_image(album, path, place, comparison, min_score)
        except InputError as error:
            pass_over(path, error, summary)
    summary.written, summary.num_images = album.paths, len(album.paths)
    summary.seconds = time.perf_counter() - start
    what = f" with {', '.join(error_types)}" if error_types else ""
    subtitle = f"{results_file.name} beside {dataset_name}: {len(album.paths)} of {len(places)} images{what}"
    kinds = KINDS if truth.annotations else {}
    summary.page = album.write_page("Predictions beside the ground truth", subtitle, kinds=kinds)
    return summary


def _compare(
    truth: GroundTruth,
    found: Detections,
    skeleton: Skeleton,
    classes: Collection[int] | None,
    types: Collection[str],
) -> tuple[Comparison, list[int]]:
    """What is drawn, and on which images. All classes count in telling right from wrong, whatever is drawn."""
    draws_truth = np.ones(len(truth.annotations), dtype=bool)
    draws_found = np.ones(len(found), dtype=bool)
    if classes is not None:
        draws_truth, draws_found = np.isin(truth.category, list(classes)), np.isin(found.category, list(classes))
    found_types = [name for name in types if name != MISSED]
    verdicts, missed = None, np.zeros(0, dtype=bool)
    if truth.annotations:
        overlaps = compute_overlaps(truth, found, "bbox")
        matches = match_detections(truth, found, overlaps, "bbox")
        errors = find_errors(truth, found, overlaps, matches)
        verdicts, missed = judge(truth, found, matches, errors), draws_truth & errors.missed
        if found_types:
            wanted = [place for place, name in enumerate(ERROR_TYPES) if name.lower() in types]
            draws_found &= np.isin(errors.type, wanted) | ((CORRECT in types) & (verdicts.detection_kind == "tp"))
    elif types:
        raise InputError("--error-type needs annotations, and the data set has none")
    chosen = np.zeros(len(truth.images), dtype=bool)
    if not types:
        chosen[truth.image[draws_truth]] = True
        chosen |= classes is None
    if not types or found_types:
        chosen[found.image[draws_found]] = True
    if MISSED in types:
        chosen[truth.image[missed]] = True
    rows = np.flatnonzero(draws_truth), np.flatnonzero(draws_found)
    return Comparison(truth, found, verdicts, *rows, skeleton, found_types), np.flatnonzero(chosen).tolist()


def _draw_image(album: Album, path: Path, place: int, comparison: Comparison, min_score: float) -> None:
    image = read_bgr(path)
    truth, found, verdicts = comparison.truth, comparison.found, comparison.verdicts
    rows = comparison.found_rows[found.image[comparison.found_rows] == place]
    results = [as_object(found.rows[i], box, found.category[i]) for i, box in zip(rows, found.box(rows), strict=True)]
    predictions = detections_from_annotations(results, *image.shape[:2])
    title, note = f"predictions, score >= {min_score:g}", ""
    if verdicts is None:
        panels = {title: draw_detections(image, predictions, truth.class_names, comparison.skeleton)}
    else:
        objects = comparison.truth_rows[truth.image[comparison.truth_rows] == place]
        annotations = [as_object(truth.annotations[i], truth.box[i], truth.category[i]) for i in objects]
        expected = detections_from_annotations(annotations, *image.shape[:2])
        object_kinds, kinds = verdicts.object_kind[objects], verdicts.detection_kind[rows]
        told = f"{(kinds == 'tp').sum()} right, {(kinds == 'fp').sum()} wrong"
        if comparison.found_types:
            told = f"{len(rows)} {' or '.join(comparison.found_types)}"
        missed = int((object_kinds == "miss").sum())
        panels = {
            f"ground truth: {len(objects)} objects, {missed} missed": _draw_judged(
                image,
                expected,
                object_kinds,
                [verdicts.object_labels[i] for i in objects],
                comparison.skeleton,
            ),
            f"{title}: {told}": _draw_judged(
                image, predictions, kinds, [verdicts.detection_labels[i] for i in rows], comparison.skeleton
            ),
        }
        note = f"{told}, {missed} missed"
    album.add_picture(
        side_by_side(panels),
        stem_of(path),
        title=path.name,
        counts=Counter(truth.class_names[category] for category in found.category[rows]),
        best_score=float(found.score[rows].max()) if len(rows) else None,
        note=note,
    )


def _draw_judged(
    image: np.ndarray, detections: sv.Detections, kinds: np.ndarray, labels: Sequence[str], skeleton: Skeleton
) -> np.ndarray:
    """In the colours of the ``kinds`` in place of those of the classes."""
    detections.class_id = np.array([list(KINDS).index(kind) for kind in kinds], dtype=int)
    return draw_labelled(image, detections, labels, _PALETTE, skeleton=skeleton)


def as_object(row: Mapping[str, Any], box: np.ndarray, category: int) -> dict[str, Any]:
    """A row of a COCO file as Detectron2 has its annotations, with the category counted from 0."""
    kept = {key: row[key] for key in ("segmentation", "keypoints", "score") if row.get(key) not in (None, [])}
    return {**kept, "bbox": box.tolist(), "bbox_mode": BoxMode.XYWH_ABS, "category_id": int(category)}
