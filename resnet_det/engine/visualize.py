"""Pictures of what a detector finds: on image files, or beside the ground truth of a data set."""

from __future__ import annotations

import argparse
import glob
import itertools
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import tqdm
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from PIL import UnidentifiedImageError

from resnet_det.data import prepare_dataset
from resnet_det.engine.predictor import Predictor
from resnet_det.errors import InputError
from resnet_det.visualization import (
    detections_from_annotations,
    detections_from_instances,
    draw_detections,
    side_by_side,
)

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def build_visualize_parser() -> argparse.ArgumentParser:
    """The flags of Detectron2's demo, and those for saved results."""
    parser = argparse.ArgumentParser(
        description="Draw what a model finds on images (--input), or saved results beside ground truth (--results).",
        epilog="Example: %(prog)s --config-file output/demo/config.yaml --input photos/ --output drawn/ "
        "--opts MODEL.WEIGHTS output/demo/model_final.pth",
    )
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="config of the model, such as config.yaml in OUTPUT_DIR"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", nargs="+", metavar="PATH", help="images, folders of images, or patterns such as 'a/*.jpg'"
    )
    source.add_argument(
        "--results", metavar="FILE", help="predictions in COCO format, such as inference/coco_instances_results.json"
    )
    parser.add_argument(
        "--dataset", help="with --results: the data set they belong to (default: the first of DATASETS.TEST)"
    )
    parser.add_argument(
        "--num-images", type=int, default=50, help="with --results: how many images to draw (default: 50)"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="lowest score that is drawn (default: 0.5)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, help="images that go through the model together (default: 4)"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs that change the config; the last flag"
    )
    return parser


def find_images(paths: Iterable[str]) -> list[Path]:
    """Image files named by ``paths``: files, folders (searched through) and glob patterns.

    Raises:
        InputError: a path names no image.
    """
    found: list[Path] = []
    for path in paths:
        matches = [Path(match) for match in sorted(glob.glob(os.path.expanduser(path), recursive=True))] or [Path(path)]
        for match in matches:
            if match.is_dir():
                inside = sorted(file for file in match.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
                if not inside:
                    raise InputError(
                        f"--input {match}: no images in this folder (looked for {', '.join(IMAGE_SUFFIXES)})"
                    )
                found += inside
            elif match.is_file():
                found.append(match)
            else:
                raise InputError(f"--input {path}: no such file or folder")
    return found


def draw_predictions(
    predictor: Predictor, paths: Sequence[Path], output: Path, *, min_score: float, batch_size: int
) -> tuple[list[Path], list[Path]]:
    """Write a picture of the predictions for each image file to ``output``.

    Returns:
        The pictures written, and the files that could not be read; these are named in the log and passed over.
    """
    output.mkdir(parents=True, exist_ok=True)
    written, unreadable = [], []
    for start in tqdm.trange(0, len(paths), batch_size, unit="batch", desc="predict", leave=False):
        images = {}
        for path in paths[start : start + batch_size]:
            try:
                images[path] = read_image(str(path), format="BGR")
            except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
                logger.error("%s: not a readable image, passed over (%s)", path, error)
                unreadable.append(path)
        for path, instances in zip(images, predictor.predict(list(images.values())) if images else [], strict=True):
            detections = detections_from_instances(instances, min_score)
            picture = draw_detections(np.ascontiguousarray(images[path]), detections, predictor.class_names)
            written.append(write_picture(picture, output, path.stem, written))
    return written, unreadable


def draw_results(
    dataset_name: str, results_file: Path, output: Path, *, min_score: float, num_images: int
) -> list[Path]:
    """Write pictures with the ground truth on the left and saved predictions on the right, for the first images of a
    data set.

    Args:
        results_file: predictions in COCO's result format, with the category ids of the annotation file.

    Returns:
        The pictures written.

    Raises:
        InputError: the results are missing, not in that format, or of other images or categories.
    """
    prepare_dataset(dataset_name)
    dicts = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    by_image = read_results(
        results_file, {entry["image_id"] for entry in dicts}, metadata.thing_dataset_id_to_contiguous_id
    )
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for entry in dicts[:num_images]:
        image = np.ascontiguousarray(read_image(entry["file_name"], format="BGR"))
        predictions = [result for result in by_image[entry["image_id"]] if result["score"] >= min_score]
        panels = {}
        for title, objects in (
            ("ground truth", entry["annotations"]),
            (f"predictions, score >= {min_score:g}", predictions),
        ):
            detections = detections_from_annotations(objects, *image.shape[:2])
            panels[title] = draw_detections(image, detections, metadata.thing_classes)
        written.append(write_picture(side_by_side(panels), output, Path(entry["file_name"]).stem, written))
    return written


def read_results(path: Path, image_ids: set[int], contiguous_ids: dict[int, int]) -> dict[int, list[dict]]:
    """COCO results by image id, their categories counted from 0.

    Raises:
        InputError: see :func:`draw_results`.
    """
    if not path.is_file():
        raise InputError(f"--results {path}: no such file")
    try:
        results = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"--results {path}: not a JSON file, or cut off: {error}") from None
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
    by_image: dict[int, list[dict]] = defaultdict(list)
    for result in results:
        category = contiguous_ids[result["category_id"]]
        by_image[result["image_id"]].append({**result, "category_id": category, "bbox_mode": BoxMode.XYWH_ABS})
    return by_image


def write_picture(picture: np.ndarray, folder: Path, stem: str, taken: Sequence[Path]) -> Path:
    """Write a BGR picture as ``folder``/``stem``.png, or ``stem``-2.png, ... if that name is ``taken`` by another.

    Raises:
        InputError: it cannot be written.
    """
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    path = next(path for path in (folder / f"{name}.png" for name in names) if path not in taken)
    if not cv2.imwrite(str(path), picture):
        raise InputError(f"--output {path}: cannot be written")
    return path


def visualize(args: argparse.Namespace, cfg: CfgNode) -> tuple[list[Path], list[Path]]:
    """Do what the flags of :func:`build_visualize_parser` say.

    Returns:
        The pictures written, and the images that could not be read.
    """
    output = Path(args.output)
    if args.results:
        dataset_name = args.dataset or next(iter(cfg.DATASETS.TEST), None)
        if dataset_name is None:
            raise InputError("--results needs --dataset, or a config with DATASETS.TEST")
        drawn = draw_results(
            dataset_name, Path(args.results), output, min_score=args.confidence_threshold, num_images=args.num_images
        )
        return drawn, []
    paths = find_images(args.input)
    return draw_predictions(
        Predictor(cfg), paths, output, min_score=args.confidence_threshold, batch_size=args.batch_size
    )
