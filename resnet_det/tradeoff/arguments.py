"""The command line of tools/compare_depths.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from resnet_det.benchmark.arguments import PRECISIONS, add_measuring_arguments, check_common_arguments
from resnet_det.errors import InputError

EPILOG = """
Examples:
  %(prog)s output/R-18 output/R-34 output/R-50 --output output/depths
  %(prog)s --config-file configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml --depths 18 34 50 101 --output output/costs
"""


def build_parser(description: str) -> argparse.ArgumentParser:
    """What to compare, where to write it, and how to measure."""
    parser = argparse.ArgumentParser(
        description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a run that has ended")
    parser.add_argument("--config-file", nargs="+", default=[], metavar="FILE", help="configs, in place of runs")
    parser.add_argument("--depths", type=int, nargs="+", default=[], metavar="D", help="each config at these depths")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the page goes")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="to measure in (default: fp32)")
    add_measuring_arguments(parser)
    parser.add_argument("--no-latency", action="store_true", help="do not measure time; compare by GMACs")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="of the test set, to time (default: 8)")
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="of configs; default: 800 1344"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for all; the last flag")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """
    Raises:
        InputError: neither runs nor configs are given, or both; or see
            :func:`~resnet_det.benchmark.arguments.check_common_arguments`.
    """
    check_common_arguments(args)
    if bool(args.runs) == bool(args.config_file):
        raise InputError("give folders of runs, or --config-file: one of the two")
    if args.runs and args.depths:
        raise InputError("--depths is for --config-file: runs have the depth they were trained with")
