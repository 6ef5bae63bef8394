#!/usr/bin/env python3
"""Bring ResNet weights from one naming and file format to another, and verify what was written."""

from __future__ import annotations

import argparse
import sys

from resnet_det.errors import InputError
from resnet_det.weights import NAMINGS, convert_weights, list_entries

SHORTCUTS = {"auto": None, "projection": False, "avg_down": True}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: %(prog)s torchvision://resnet18 R-18.pkl",
    )
    parser.add_argument("source", nargs="?", metavar="SRC", help="a file, or a URI such as timm://resnet50d.ra2_in1k")
    parser.add_argument(
        "destination", nargs="?", metavar="DST", help="the new file: .pth, .pt, .pyth, .pkl or .safetensors"
    )
    parser.add_argument(
        "--to", choices=NAMINGS, default="detectron2", help="naming of the new file (default: detectron2)"
    )
    parser.add_argument(
        "--shortcut",
        choices=SHORTCUTS,
        default="auto",
        help="to timm: what the shortcuts are, which the names do not tell (default: avg_down where the stem is deep)",
    )
    parser.add_argument("--strip", action="store_true", help="leave out what is not weights: optimizer, iteration, ...")
    parser.add_argument("--list", action="store_true", help="list the catalogue of weights, and stop")
    args = parser.parse_args()
    if args.list:
        for entry in list_entries():
            print(f"{entry.uri}  {entry.licence}  {entry.paper}  {entry.conventions.channel_order}")
        return 0
    if not args.source or not args.destination:
        parser.error("SRC and DST are needed")
    try:
        report = convert_weights(
            args.source, args.destination, naming=args.to, avg_down=SHORTCUTS[args.shortcut], strip=args.strip
        )
    except InputError as error:
        print(f"convert_weights: {error}", file=sys.stderr)
        return 2
    print(f"{args.destination}: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
