#!/usr/bin/env python3
"""Make COCO annotation files of a data set in Pascal VOC's or YOLO's layout, for --train-data and --test-data."""

from __future__ import annotations

import argparse
import sys

from resnet_det.data.formats.labels import count_objects, describe_losses, write_coco
from resnet_det.data.formats.voc import read_voc
from resnet_det.data.formats.yolo import read_yolo
from resnet_det.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: %(prog)s yolo my/data.yaml --output my/annotations"
    )
    formats = parser.add_subparsers(dest="format", required=True)
    voc = formats.add_parser("voc", help="Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt")
    voc.add_argument(
        "source",
        metavar="FOLDER",
        help="the folder of Annotations and JPEGImages, of annots and images, or of XML files beside their images",
    )
    voc.add_argument("--splits", nargs="+", default=[], help="lists of ImageSets/Main (default: train, val, test)")
    voc.add_argument(
        "--zero-based",
        action="store_true",
        help="boxes are edges counted from 0, as labelImg writes them (default: pixels counted from 1, both included)",
    )
    voc.add_argument(
        "--ignore-difficult",
        action="store_true",
        help="leave objects marked difficult out of training and evaluation, as crowds (default: ordinary objects)",
    )
    yolo = formats.add_parser("yolo", help="boxes, polygons, oriented boxes or poses: data.yaml, images/ and labels/")
    yolo.add_argument(
        "source",
        metavar="DATA",
        help="data.yaml, or the folder with images/ and labels/ (and classes.txt or obj.names)",
    )
    for subparser in (voc, yolo):
        subparser.add_argument("--names", nargs="+", default=[], help="the classes, in their order")
        subparser.add_argument(
            "--strict", action="store_true", help="stop at lines that cannot be read, in place of leaving them out"
        )
        subparser.add_argument("--output", required=True, metavar="FOLDER", help="where <split>.json go")
    args = parser.parse_args()
    try:
        if args.format == "voc":
            options = {"zero_based": args.zero_based, "ignore_difficult": args.ignore_difficult}
            splits, classes = read_voc(args.source, args.splits, args.names, **options)
        else:
            splits, classes = read_yolo(args.source, args.names)
        paths = write_coco(splits, classes, args.output, strict=args.strict)
    except InputError as error:
        print(f"prepare_dataset: {error}", file=sys.stderr)
        return 2
    for split, path in zip(splits, paths, strict=True):
        counts = count_objects(split, classes.names)
        print(f"{path} {split.image_folder}: {len(split.images)} images, {sum(counts.values())} objects")
        print("".join(f"  {count:7d} {name}\n" for name, count in counts.items()), end="")
        for line in describe_losses(split):
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
