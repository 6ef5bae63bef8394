#!/usr/bin/env python
"""Measure how fast this package is, beside Detectron2 and others.

Contenders do the same work in one process and in turn. Shown are the median and spread of their times, how many times
as fast as the first each is, and how far its output is from the first's. Exit status 2 for a wrong input.
"""

import argparse
import os
import sys

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts memory, says when it starts and stops

import torch

from resnet_det.benchmark import (
    SUBCOMMANDS,
    add_common_arguments,
    check_common_arguments,
    describe_machine,
    format_comparison,
    write_comparisons,
)
from resnet_det.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in SUBCOMMANDS.items():
        description = module.__doc__
        command = commands.add_parser(name, description=description, help=description.splitlines()[0])
        add_common_arguments(command)
        module.add_arguments(command)
    args = parser.parse_args()
    try:
        check_common_arguments(args)
        torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
        machine = describe_machine(args.device)
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
        comparisons = []
        for comparison in SUBCOMMANDS[args.command].run(args):
            comparisons.append(comparison)
            print(f"\n{format_comparison(comparison)}", flush=True)
        if args.json:
            write_comparisons(comparisons, args.json, machine=machine, command=sys.argv)
            print(f"\nWritten: {args.json}")
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
