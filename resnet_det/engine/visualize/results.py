"""Pictures of saved results beside the ground truth of a data set."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tqdm
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from resnet_det.data import prepare_dataset
from resnet_det.data.json_files import read_json
from resnet_det.engine.visualize.filters import Filter, find_classes
from resnet_det.engine.visualize.inputs import read_bgr
from resnet_det.engine.visualize.predictions import Summary, pass_over
from resnet_det.errors import InputError
from resnet_det.visualization import detections_from_annotations, draw_detections, side_by_side
from resnet_det.visualization.album import Album


def draw_results(
    dataset_name: str,
    results_file: Path,
    output: Path,
    *,
    min_score: float,
    num_images: int,
    classes: Collection[str] | None = None,
) -> Summary:
    """Write pictures with the ground truth on the left and saved predictions on the right, and gallery.html, for the
    first images of a data set.

    Args:
        results_file: predictions in COCO's result format, with the category ids of the annotation file.
        classes: names of those that are shown; the images are then those that have them. None: all.

    Raises:
        InputError: the results are missing, not in that format, or of other images or categories.
    """
    prepare_dataset(dataset_name)
    dicts = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    places = metadata.get("thing_dataset_id_to_contiguous_id")
    if places is None:
        raise InputError(f"--dataset {dataset_name}: not a data set in COCO format")
    shown = Filter(min_score, find_classes(classes, metadata.thing_classes))
    by_image = read_results(results_file, {entry["image_id"] for entry in dicts}, places)
    chosen = []
    for entry in dicts:
        truth = shown.of_annotations(entry.get("annotations", ()))
        predictions = shown.of_annotations(by_image[entry["image_id"]])
        if classes is None or truth or predictions:
            chosen.append((entry["file_name"], truth, predictions))
    album, summary = Album(output), Summary()
    start = time.perf_counter()
    for file_name, truth, predictions in tqdm.tqdm(chosen[:num_images], unit="image", desc="draw", leave=False):
        path = Path(file_name)
        try:
            image = read_bgr(path)
        except InputError as error:
            pass_over(path, error, summary)
            continue
        panels = {
            title: draw_detections(image, detections_from_annotations(rows, *image.shape[:2]), metadata.thing_classes)
            for title, rows in (("ground truth", truth), (f"predictions, score >= {min_score:g}", predictions))
        }
        album.add_picture(
            side_by_side(panels),
            path.stem,
            title=path.name,
            counts=Counter(metadata.thing_classes[row["category_id"]] for row in predictions),
            best_score=max((row["score"] for row in predictions), default=None),
            note=f"{len(truth)} in the ground truth",
        )
    summary.written, summary.num_images = album.paths, len(album.paths)
    summary.seconds = time.perf_counter() - start
    subtitle = f"{results_file.name} beside {dataset_name}: {len(album.paths)} of {len(chosen)} images"
    summary.page = album.write_page("Predictions beside the ground truth", subtitle)
    return summary


def read_results(path: Path, image_ids: set[int], contiguous_ids: dict[int, int]) -> dict[int, list[dict[str, Any]]]:
    """COCO results by image id, their categories counted from 0.

    Raises:
        InputError: see :func:`draw_results`.
    """
    if not path.is_file():
        raise InputError(f"--results {path}: no such file")
    results = read_json(path)
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(results, list) or not all(
        isinstance(result, dict) and needed <= result.keys() for result in results
    ):
        raise InputError(
            f"--results {path}: not in COCO's result format: a list of objects with {', '.join(sorted(needed))}"
        )
    for key, known in (("image_id", image_ids), ("category_id", contiguous_ids.keys())):
        unknown = {result[key] for result in results} - known
        if unknown:
            examples = ", ".join(map(str, sorted(unknown)[:3]))
            raise InputError(
                f"--results {path}: {len(unknown)} {key}s are not in the data set (such as {examples}): of another one?"
            )
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        category = contiguous_ids[result["category_id"]]
        by_image[result["image_id"]].append({**result, "category_id": category, "bbox_mode": BoxMode.XYWH_ABS})
    return by_image
