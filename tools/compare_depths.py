#!/usr/bin/env python
"""Which detector to take: several runs (R-18 to R-152, or any) by their AP and what they cost, on one page.

Of folders of runs of tools/train_net.py: AP with confidence intervals, time, multiply-adds, parameters, memory, the
Pareto front, AP for each extra millisecond, learning curves. Of configs alone (--config-file): what they cost. Written
to --output: tradeoff.html, one file that opens without a server or the network, and tradeoff.json. Ends with status 2
for a wrong input.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger

from resnet_det.benchmark.arguments import PRECISIONS, add_measuring_arguments, check_common_arguments
from resnet_det.errors import InputError
from resnet_det.tradeoff import Measuring, compare_configs, compare_runs, format_tradeoff


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Examples:\n  %(prog)s output/R-18 output/R-34 output/R-50 --output output/depths\n"
        "  %(prog)s --config-file configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml --depths 18 34 50 101 "
        "--output output/costs",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a run that has ended")
    parser.add_argument("--config-file", nargs="+", default=[], metavar="FILE", help="configs, in place of runs")
    parser.add_argument("--depths", type=int, nargs="+", default=[], metavar="D", help="each config at these depths")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the page goes")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="to measure in (default: fp32)")
    add_measuring_arguments(parser)
    parser.add_argument("--no-latency", action="store_true", help="do not measure time; compare by GMACs")
    parser.add_argument(
        "--images", type=int, default=8, metavar="N", help="of the test set, to measure time on (default: 8)"
    )
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        default=(800, 1344),
        metavar=("H", "W"),
        help="of configs (default: 800 1344)",
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for all; the last flag")
    args = parser.parse_args()
    setup_logger(name="resnet_det")
    try:
        check_common_arguments(args)
        if bool(args.runs) == bool(args.config_file):
            raise InputError("give folders of runs, or --config-file: one of the two")
        torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
        measuring = Measuring(args.device, args.precision, 0 if args.no_latency else args.pairs)
        if args.runs:
            result = compare_runs(args.runs, args.output, measuring, num_images=args.images, opts=args.opts)
        else:
            size = tuple(args.input_size)
            result = compare_configs(
                args.config_file, args.depths, args.output, measuring, input_size=size, opts=args.opts
            )
    except InputError as error:
        print(f"compare_depths: {error}", file=sys.stderr)
        return 2
    print(f"{format_tradeoff(*result)}\n\nWritten: {args.output / 'tradeoff.html'}, {args.output / 'tradeoff.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
