#!/usr/bin/env python
"""Download COCO 2017, check its hashes and unpack it where Detectron2 looks for it; can be called again at any time."""

import argparse
import os
import sys

from resnet_det.data.loading.coco_download import ARCHIVES, download_coco
from resnet_det.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which parts: {', '.join(ARCHIVES)} (default: all, 20 GB)"
    )
    root = os.getenv("DETECTRON2_DATASETS", "datasets")
    parser.add_argument(
        "--root", default=root, help="folder to hold coco/ (default: $DETECTRON2_DATASETS, else datasets)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the zip files")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(ARCHIVES):
        parser.error(f"no part {', '.join(sorted(unknown))}; choose from {', '.join(ARCHIVES)}")
    try:
        folder = download_coco(args.root, args.parts or tuple(ARCHIVES), keep=args.keep)
    except InputError as error:
        print(f"prepare_coco: {error}", file=sys.stderr)
        return 2
    print(f"COCO 2017 is in {folder}. Set DETECTRON2_DATASETS={args.root} if that is not ./datasets.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
