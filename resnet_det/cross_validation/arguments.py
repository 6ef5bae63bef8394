"""The command line of tools/cross_validate.py."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """
Examples:
  %(prog)s --config-file configs/BCCD/faster_rcnn_R_18_FPN_700.yaml --data all.json --images im/ --output output/folds
  %(prog)s --config-file C.yaml --data all.json --images im/ --group-by '^(patient\\d+)_' --output output/folds

The same command goes on with what was broken off.
"""


def build_parser(description: str) -> argparse.ArgumentParser:
    """What to train on which folds, and where it goes."""
    parser = argparse.ArgumentParser(
        description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the detector and its training")
    parser.add_argument("--data", type=Path, required=True, metavar="ANNOTATIONS", help="one COCO annotation file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of its images")
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="number of folds (default: 5)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the folds, and of training if SEED is not set (default: 0)"
    )
    parser.add_argument(
        "--group-by",
        default="",
        metavar="KEY",
        help="images of one group, such as a patient or a slide, are never both trained and tested on: a key of the "
        "images in the file, or a regular expression for their file names, whose first parentheses are the group",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="number of GPUs that train each fold, as in train_net.py (default: 1)",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for all folds, at the end")
    return parser
