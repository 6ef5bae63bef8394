#!/usr/bin/env python3
"""Count the objects of each class on each image, and add up their areas, from predictions of any detector.

Written to --output: counts.csv, a row for each image and class; counts.json; and, where --annotations has the true
objects, counts.html, with their error by class, predicted over true counts, and Bland-Altman plots. Ends with status 2
for a wrong input.

An error is honest only if the score threshold was chosen on other images: --threshold-from a validation set.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from pathlib import Path

from resnet_det.errors import InputError
from resnet_det.evaluation.count_files import count_files
from resnet_det.evaluation.count_page import OUTPUT_NAMES, format_counting, write_counting
from resnet_det.evaluation.files import describe_software, hash_file, hash_results
from resnet_det.evaluation.thresholds import add_threshold_arguments
from resnet_det.outputs import OutputFolder

EPILOG = """
Examples:
  %(prog)s --results predictions --score-threshold 0.5 --output output/counts
  %(prog)s --annotations test.json --results test_results.json --threshold-from val.json val_results.json \\
      --pixel-size 0.25 --output output/counts
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="R",
        help="detections in COCO's result format, or a folder of tools/predict.py",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="A",
        help="a COCO file that names images and classes, and has the true objects if they are known; a folder of "
        "tools/predict.py needs none",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the files go")
    add_threshold_arguments(
        parser,
        score_help="the lowest score that counts (default: of each class that of the best F1 on --annotations)",
        from_help="choose the score of the best F1 on these, such as a validation set",
    )
    parser.add_argument(
        "--pixel-size",
        type=_positive,
        metavar="UM",
        help="side of a pixel in micrometres: counts.csv has areas in square micrometres, too",
    )
    parser.add_argument("--crowd-as-objects", action="store_true", help="treat crowd regions (iscrowd 1) as objects")
    args = parser.parse_args()
    logging.basicConfig(format="count_objects: %(message)s", level=logging.WARNING)
    try:
        OutputFolder(args.output, OUTPUT_NAMES)
        counting = count_files(
            args.results,
            args.annotations,
            score_threshold=args.score_threshold,
            threshold_from=args.threshold_from,
            crowd_as_objects=args.crowd_as_objects,
        )
        facts = {"results": f"{args.results}, sha256 {hash_results(args.results)}"}
        if args.annotations:
            facts["annotations"] = f"{args.annotations} ({counting.truth.usage}), sha256 {hash_file(args.annotations)}"
        written = write_counting(counting, args.output, facts | describe_software(), pixel_size_um=args.pixel_size)
    except InputError as error:
        print(f"count_objects: {error}", file=sys.stderr)
        return 2
    print(f"{format_counting(counting)}\n\nWritten: {', '.join(map(str, written))}")
    return 0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}; a length above 0 in micrometres would be right, such as 0.25")
    return value


if __name__ == "__main__":
    sys.exit(main())
