#!/usr/bin/env python
"""Look at what a detector finds (--help says how)."""

import sys

from detectron2.utils.logger import setup_logger

from resnet_det.engine.visualize import build_visualize_parser, setup_visualize_cfg, visualize
from resnet_det.errors import InputError


def main() -> int:
    args = build_visualize_parser().parse_args()
    setup_logger(name="resnet_det")
    try:
        summary = visualize(args, setup_visualize_cfg(args))
    except InputError as error:
        print(f"visualize: {error}", file=sys.stderr)
        return 2
    speed = summary.num_images / summary.seconds if summary.seconds else 0.0
    print(f"{summary.num_images} images in {summary.seconds:.1f} s: {speed:.1f} images/s")
    if summary.written:
        print(f"{len(summary.written)} files written to {args.output}")
    if summary.page:
        print(f"Look at {summary.page}")
    if summary.unreadable:
        print(f"{len(summary.unreadable)} could not be read, such as {summary.unreadable[0]}", file=sys.stderr)
    return 1 if summary.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
