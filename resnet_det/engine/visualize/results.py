"""Pictures of saved results beside the ground truth of a data set."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from resnet_det.data import prepare_dataset, read_coco_json
from resnet_det.engine.visualize.filters import find_classes
from resnet_det.engine.visualize.inputs import read_bgr
from resnet_det.engine.visualize.predictions import Summary, pass_over
from resnet_det.errors import InputError
from resnet_det.evaluation.detections import Detections, make_detections
from resnet_det.evaluation.errors import ERROR_TYPES, find_errors
from resnet_det.evaluation.ground_truth import GroundTruth, make_ground_truth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.results_check import find_iou_types, read_results
from resnet_det.visualization import detections_from_annotations, draw_detections, side_by_side
from resnet_det.visualization.album import Album

CORRECT, MISSED = "correct", "miss"
ERROR_CHOICES = (CORRECT, *(name.lower() for name in ERROR_TYPES))


@dataclass(frozen=True, eq=False)
class Panel:
    """What is drawn side by side on each image: rows of the annotations, or of the detections."""

    title: str
    rows: np.ndarray
    is_truth: bool


def draw_results(
    dataset_name: str,
    results_file: Path,
    output: Path,
    *,
    min_score: float,
    num_images: int,
    classes: Collection[str] | None = None,
    error_types: Collection[str] = (),
) -> Summary:
    """Write pictures with the ground truth on the left and saved predictions on the right, and gallery.html, for the
    first images of a data set.

    Args:
        results_file: predictions in COCO's result format, with the category ids of the annotation file.
        classes: names of those that are shown; the images are then those that have them. None: all.
        error_types: of ``ERROR_CHOICES``: the images that have them, with a panel for each.

    Raises:
        InputError: the results are missing, not in that format, or of other images or categories.
    """
    prepare_dataset(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") is None or metadata.get("evaluator_type") != "coco":
        raise InputError(f"--dataset {dataset_name}: not a data set in COCO format")
    truth = make_ground_truth(read_coco_json(metadata.json_file))
    chosen_classes = find_classes(classes, truth.class_names)
    rows = read_results(results_file, truth)
    found = make_detections(rows, truth)
    shown = found.score >= min_score
    real = np.ones(len(truth.annotations), dtype=bool)
    if chosen_classes is not None:
        shown &= np.isin(found.category, list(chosen_classes))
        real &= np.isin(truth.category, list(chosen_classes))
    if error_types:
        panels = _error_panels(truth, found, find_iou_types(rows, truth)[0], shown, real, list(error_types))
    else:
        panels = [
            Panel("ground truth", np.flatnonzero(real), is_truth=True),
            Panel(f"predictions, score >= {min_score:g}", np.flatnonzero(shown), is_truth=False),
        ]
    places = list(range(len(truth.images)))
    if classes is not None or error_types:
        places = _choose_images(truth, found, panels[1:] if error_types else panels)
    album, summary = Album(output), Summary()
    start = time.perf_counter()
    for place in tqdm.tqdm(places[:num_images], unit="image", desc="draw", leave=False):
        path = Path(metadata.image_root, truth.images[place]["file_name"])
        try:
            _draw_image(album, path, place, truth, found, panels)
        except InputError as error:
            pass_over(path, error, summary)
    summary.written, summary.num_images = album.paths, len(album.paths)
    summary.seconds = time.perf_counter() - start
    what = f" with {', '.join(error_types)}" if error_types else ""
    subtitle = f"{results_file.name} beside {dataset_name}: {len(album.paths)} of {len(places)} images{what}"
    summary.page = album.write_page("Predictions beside the ground truth", subtitle)
    return summary


def _error_panels(
    truth: GroundTruth, found: Detections, iou_type: str, shown: np.ndarray, real: np.ndarray, types: list[str]
) -> list[Panel]:
    """The ground truth, and a panel for each type of error. All detections count in telling the types, whatever is
    shown."""
    overlaps = compute_overlaps(truth, found, iou_type)
    matches = match_detections(truth, found, overlaps, iou_type)
    errors = find_errors(truth, found, overlaps, matches)
    panels = [Panel("ground truth", np.flatnonzero(real), is_truth=True)]
    names = [name.lower() for name in ERROR_TYPES]
    for kind in types:
        if kind == MISSED:
            panels.append(Panel("missed objects", np.flatnonzero(real & errors.missed), is_truth=True))
        elif kind == CORRECT:
            right = (matches.annotation[0] >= 0) & ~matches.ignored[0]
            panels.append(Panel("correct", np.flatnonzero(shown & right), is_truth=False))
        else:
            title = list(ERROR_TYPES.values())[names.index(kind)].split(":")[0]
            of_kind = shown & (errors.type == names.index(kind))
            panels.append(Panel(f"wrong: {title}", np.flatnonzero(of_kind), is_truth=False))
    return panels


def _choose_images(truth: GroundTruth, found: Detections, panels: list[Panel]) -> list[int]:
    """The images that have something in one of ``panels``, in their order."""
    has = np.zeros(len(truth.images), dtype=bool)
    for panel in panels:
        has[(truth.image if panel.is_truth else found.image)[panel.rows]] = True
    return np.flatnonzero(has).tolist()


def _draw_image(
    album: Album, path: Path, place: int, truth: GroundTruth, found: Detections, panels: list[Panel]
) -> None:
    image = read_bgr(path)
    drawn, counts, scores = {}, Counter(), []
    for panel in panels:
        source = truth if panel.is_truth else found
        rows = panel.rows[source.image[panel.rows] == place]
        if panel.is_truth:
            objects = [_as_object(truth.annotations[row], truth.box[row], truth.category[row]) for row in rows]
        else:
            boxes = found.box(rows)
            objects = [
                _as_object(found.rows[row], box, found.category[row]) for row, box in zip(rows, boxes, strict=True)
            ]
        if panel is not panels[0]:
            counts.update(truth.class_names[source.category[row]] for row in rows)
            scores += [float(item["score"]) for item in objects if "score" in item]
        detections = detections_from_annotations(objects, *image.shape[:2])
        drawn[panel.title] = draw_detections(image, detections, truth.class_names)
    num_objects = int((truth.image[panels[0].rows] == place).sum())
    album.add_picture(
        side_by_side(drawn),
        path.stem,
        title=path.name,
        counts=counts,
        best_score=max(scores, default=None),
        note=f"{num_objects} in the ground truth",
    )


def _as_object(row: dict[str, Any], box: np.ndarray, category: int) -> dict[str, Any]:
    """A row of a COCO file as Detectron2 has its annotations, with the category counted from 0."""
    kept = {key: row[key] for key in ("segmentation", "keypoints", "score") if row.get(key)}
    return {**kept, "bbox": box.tolist(), "bbox_mode": BoxMode.XYWH_ABS, "category_id": int(category)}
