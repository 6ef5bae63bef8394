#!/usr/bin/env python3
"""List everything that is wrong with data sets in COCO format, and write cleaned copies of them.

Ends with status 1 if there are errors (what would stop or falsify training or evaluation), 0 if there are only warnings
and notes, and 2 if a file or folder is not there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from resnet_det.data.coco.problems import count_errors, format_counts, format_problems
from resnet_det.data.inspection.clean import write_clean_sets
from resnet_det.data.inspection.sets import inspect_sets
from resnet_det.errors import InputError
from resnet_det.outputs import make_new_folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: %(prog)s --annotations train.json --images train --annotations val.json --images val",
    )
    parser.add_argument(
        "--annotations", action="append", required=True, metavar="JSON", help="an annotation file; again for each split"
    )
    parser.add_argument(
        "--images",
        action="append",
        required=True,
        metavar="DIR",
        help="its image folder; in the order of --annotations",
    )
    parser.add_argument("--fix", metavar="OUT", type=Path, help="write cleaned copies here: a new or empty folder")
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="threads that read images (default: one per CPU)"
    )
    parser.add_argument(
        "--max-image-pixels",
        type=_positive,
        default=0,
        metavar="N",
        help="the most pixels of an image that are read, as RESNET_DET.DATA.MAX_IMAGE_PIXELS (default: Pillow's limit)",
    )
    parser.add_argument(
        "--crowd-as-objects",
        action="store_true",
        help="treat crowd regions (iscrowd 1) as objects, as CVAT's brush masks are meant; a copy of --fix has none",
    )
    parser.add_argument(
        "--max-lines", type=int, default=20, metavar="N", help="problems shown of each kind and file (default: 20)"
    )
    args = parser.parse_args()
    if len(args.annotations) != len(args.images):
        parser.error(f"{len(args.annotations)} --annotations, but {len(args.images)} --images; each needs the other")
    try:
        if args.fix:
            # New, for writing over a hard link would change the original; and before time is spent on the inspection.
            make_new_folder(args.fix, flag="--fix")
        pairs = list(zip(args.annotations, args.images, strict=True))
        sets = inspect_sets(
            pairs,
            workers=args.workers,
            crowd_as_objects=args.crowd_as_objects,
            max_pixels=args.max_image_pixels,
        )
        for one in sets:
            counts = ", ".join(
                f"{key} {len(one.content.get(key, ())):,}" for key in ("images", "annotations", "categories")
            )
            print(f"{one.annotation_file}: {counts}")
            if one.data is not None:
                print(f"  used: {one.data.count_use()}")
            for line in format_problems(one.problems, one.content, args.max_lines):
                print(f"  {line}")
            print()
        problems = [problem for one in sets for problem in one.problems]
        print(format_counts(problems))
        if args.fix:
            print()
            for line in write_clean_sets(sets, args.fix, crowd_as_objects=args.crowd_as_objects):
                print(line)
    except InputError as error:
        print(f"check_dataset: {error}", file=sys.stderr)
        return 2
    return 1 if count_errors(problems) else 0


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}; a number from 1 on would be right")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
