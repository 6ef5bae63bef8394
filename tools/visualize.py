#!/usr/bin/env python
"""Draw what a detector finds (--help says how). Exit status 1 if an image could not be read, 2 for a wrong input."""

import sys

from detectron2.utils.logger import setup_logger

from resnet_det.engine import build_visualize_parser, setup_cfg, visualize
from resnet_det.errors import InputError


def main() -> int:
    args = build_visualize_parser().parse_args()
    setup_logger(name="resnet_det")
    try:
        written, unreadable = visualize(args, setup_cfg(args))
    except InputError as error:
        print(f"visualize: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} pictures written to {args.output}")
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
