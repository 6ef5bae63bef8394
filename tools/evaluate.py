#!/usr/bin/env python3
"""Evaluate detections in COCO's result format, of any detector: AP and AR, where AP is lost, confidence intervals,
TP / (TP + FP + FN) by IoU.

With --output, evaluation.json and report.html are written: one file that opens without a server or the network.
Ends with status 2 for a wrong input.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from resnet_det.data.coco.keypoints import DEFAULT_SIGMA
from resnet_det.errors import InputError
from resnet_det.evaluation.coco import IOU_TYPES
from resnet_det.evaluation.files import evaluate_files
from resnet_det.evaluation.text import format_analysis, format_comparison
from resnet_det.evaluation.thresholds import add_threshold_arguments


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: %(prog)s --annotations val.json --results coco_instances_results.json --images val/ "
        "--output output/evaluation",
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="A", help="a COCO annotation file")
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="R",
        help="detections in COCO's result format, or a folder of tools/predict.py",
    )
    parser.add_argument(
        "--iou-type", nargs="+", choices=IOU_TYPES, default=[], help="what to evaluate (default: all that is there)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the image folder, for the report's gallery")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where evaluation.json and report.html go")
    parser.add_argument("--compare", type=Path, metavar="R2", help="detections of another run on the same images")
    parser.add_argument(
        "--max-detections",
        type=_positive,
        metavar="N",
        help="detections of an image and class that count (default: COCO's 100, and 20 of people with keypoints)",
    )
    add_threshold_arguments(
        parser,
        score_help="the lowest score of detections that are shown, for TP / (TP + FP + FN), confusion and pictures "
        "(default: that of the best F1)",
        from_help="choose that score on these, such as a validation set, and not on the images that are evaluated",
        parse=float,
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=[],
        metavar="S",
        help=f"of the keypoints, one each (default: COCO's for 17 keypoints, else {DEFAULT_SIGMA})",
    )
    parser.add_argument("--crowd-as-objects", action="store_true", help="treat crowd regions (iscrowd 1) as objects")
    args = parser.parse_args()
    logging.basicConfig(format="evaluate: %(message)s", level=logging.WARNING)
    try:
        analyses, comparisons = evaluate_files(
            args.annotations,
            args.results,
            iou_types=args.iou_type,
            images=args.images,
            output=args.output,
            compare_with=args.compare,
            crowd_as_objects=args.crowd_as_objects,
            max_detections=args.max_detections,
            score_threshold=args.score_threshold,
            threshold_from=args.threshold_from,
            kpt_oks_sigmas=args.sigmas,
        )
    except InputError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    for analysis in analyses:
        print(f"{format_analysis(analysis)}\n")
    for comparison in comparisons:
        print(f"{format_comparison(comparison)}\n")
    if args.output:
        print(f"Written: {args.output / 'report.html'}, {args.output / 'evaluation.json'}")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}; a number from 1 would be right")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
