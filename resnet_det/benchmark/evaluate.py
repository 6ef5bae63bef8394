"""COCO evaluation, files included: ours beside pycocotools.

The annotations and results are made up, unless they are given. What is compared are COCO's 12 numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resnet_det.benchmark.compare import Comparison, compare
from resnet_det.benchmark.random_results import random_results
from resnet_det.data.coco import read_coco
from resnet_det.data.coco.json_files import read_json
from resnet_det.errors import InputError
from resnet_det.evaluation.coco import run_coco_evaluation
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.ground_truth import GroundTruth, make_ground_truth
from resnet_det.evaluation.results_check import read_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=500, metavar="N", help="made-up images (default: 500)")
    parser.add_argument("--detections", type=int, default=100, metavar="N", help="of each image (default: 100)")
    parser.add_argument("--iou-type", nargs="+", choices=("bbox", "segm"), default=["bbox", "segm"])
    parser.add_argument(
        "--annotations", type=Path, metavar="A", help="a COCO annotation file, in place of made-up data"
    )
    parser.add_argument("--results", type=Path, metavar="R", help="detections for it")


def run(args: argparse.Namespace) -> Iterator[Comparison]:
    """Reading the annotation file, then the whole evaluation for each kind of overlap.

    Raises:
        InputError: --annotations without --results, or files that cannot be used.
    """
    if (args.annotations is None) != (args.results is None):
        raise InputError("--annotations needs --results, and the other way round")
    with tempfile.TemporaryDirectory() as folder:
        annotations, results = args.annotations, args.results
        if annotations is None:
            annotations, results = write_random(Path(folder), args.images, args.detections)
        truth = make_ground_truth(read_coco(annotations))
        num_images = len(truth.images)
        num_results = len(read_results(results, truth, args.iou_type))
        options = {"pairs": args.pairs, "warm_up": 1, "items": num_images}
        yield compare(
            f"Annotation file read: {num_images:,} images, {len(truth.annotations):,} objects",
            {
                "pycocotools": lambda: len(read_with_pycocotools(annotations).anns),
                "resnet_det": lambda: len(read_ours(annotations).annotations),
            },
            **options,
        )
        for iou_type in args.iou_type:
            contenders = {
                "pycocotools": lambda kind=iou_type: evaluate_with_pycocotools(annotations, results, kind),
                "resnet_det": lambda kind=iou_type: evaluate_ours(annotations, results, kind),
            }
            title = f"COCO evaluation, files included: {iou_type}, {num_images:,} images, {num_results:,} detections"
            yield compare(title, contenders, **options)


def write_random(folder: Path, num_images: int, per_image: int) -> tuple[Path, Path]:
    """Made-up annotations and results as files."""
    paths = folder / "annotations.json", folder / "results.json"
    for path, content in zip(paths, random_results(0, num_images=num_images, per_image=per_image), strict=True):
        path.write_text(json.dumps(content))
    return paths


def read_with_pycocotools(annotations: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(annotations)


def read_ours(annotations: Path) -> GroundTruth:
    """Read, and made ready for the evaluation."""
    truth = make_ground_truth(read_coco(annotations))
    truth.coco.create_index()
    return truth


def evaluate_with_pycocotools(annotations: Path, results: Path, iou_type: str) -> np.ndarray:
    """COCO's 12 numbers, as Detectron2 has them: masks are as large as they are, not as their boxes."""
    truth = read_with_pycocotools(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        rows = json.loads(results.read_bytes())
        if iou_type == "segm":
            for row in rows:
                row.pop("bbox", None)
        evaluation = COCOeval(truth, truth.loadRes(rows), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def evaluate_ours(annotations: Path, results: Path, iou_type: str) -> np.ndarray:
    """The same."""
    truth = read_ours(annotations)
    return np.array(run_coco_evaluation(truth, make_detections(read_json(results), truth), iou_type).stats)
