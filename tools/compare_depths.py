#!/usr/bin/env python
"""Which detector to take: several runs (R-18 to R-152, or any) by their AP and what they cost, on one page.

Of folders of runs of tools/train_net.py: AP with confidence intervals, time, multiply-adds, parameters, memory, the
Pareto front, AP for each extra millisecond, learning curves. Of configs alone (--config-file): what they cost.

Written to --output: tradeoff.html, one file that opens without a server or the network, and tradeoff.json. Ends with
status 1 if a detector could not be run, 2 for a wrong input.
"""

import os
import sys

import torch
from detectron2.utils.logger import setup_logger

from resnet_det.errors import InputError
from resnet_det.tradeoff import (
    Measuring,
    build_parser,
    check_arguments,
    compare_configs,
    compare_runs,
    format_tradeoff,
)


def main() -> int:
    args = build_parser(__doc__).parse_args()
    setup_logger(name="resnet_det")
    try:
        check_arguments(args)
        torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
        measuring = Measuring(args.device, args.precision, 0 if args.no_latency else args.pairs)
        common = {"output": args.output, "measuring": measuring, "opts": args.opts}
        if args.runs:
            tradeoff, verdict = compare_runs(args.runs, num_images=args.images, **common)
        else:
            size = tuple(args.input_size)
            tradeoff, verdict = compare_configs(args.config_file, args.depths, input_size=size, **common)
    except InputError as error:
        print(f"compare_depths: {error}", file=sys.stderr)
        return 2
    print(format_tradeoff(tradeoff, verdict))
    print(f"\nWritten: {args.output / 'tradeoff.html'}, {args.output / 'tradeoff.json'}")
    return 0 if tradeoff.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
