#!/usr/bin/env python3
"""Make COCO annotation files of a data set in another layout, for --train-data and --test-data, or the other way round,
or images by class of them, for tools/train_classifier.py.

What is left out, mended or not read is counted and said; one bad entry does not stop the rest (--strict: it does).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_det.data.formats.crops import write_crops
from resnet_det.data.formats.csv_boxes import read_csv
from resnet_det.data.formats.export import ExportedSet, describe_export, read_sets
from resnet_det.data.formats.label_studio import read_label_studio
from resnet_det.data.formats.labelme import read_labelme
from resnet_det.data.formats.labels import Classes, Split, count_objects, describe_losses, write_coco
from resnet_det.data.formats.mask_images import read_masks
from resnet_det.data.formats.via import read_via
from resnet_det.data.formats.voc import read_voc
from resnet_det.data.formats.voc_export import write_voc
from resnet_det.data.formats.yolo import read_yolo
from resnet_det.data.formats.yolo_export import TASKS, write_yolo
from resnet_det.errors import InputError
from resnet_det.outputs import make_new_folder

READERS = {  # name: reader, what it reads, what SOURCE is, and the arguments that it takes besides
    "voc": (
        read_voc,
        "Pascal VOC: Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt",
        "the folder of Annotations and JPEGImages, of annots and images, or of XML files beside their images",
        ("split_names", "zero_based", "ignore_difficult"),
    ),
    "yolo": (
        read_yolo,
        "YOLO: boxes, polygons, oriented boxes or poses; data.yaml, images/ and labels/",
        "data.yaml, obj.data, or the folder with images/ and labels/ (and classes.txt or obj.names)",
        (),
    ),
    "masks": (
        read_masks,
        "masks that are images: a file, number or colour for each object or class",
        "the folder of <image>/images/ and <image>/masks/, of images/ and masks/, or of JPEGImages, SegmentationObject "
        "and SegmentationClass",
        ("pixels",),
    ),
    "labelme": (read_labelme, "labelme: a JSON file for each image", "the folder of the JSON files", ("images",)),
    "via": (
        read_via,
        "VGG Image Annotator: annotations or projects (JSON)",
        "a JSON file, or a folder of them",
        ("images", "attribute"),
    ),
    "label-studio": (
        read_label_studio,
        "Label Studio: export as JSON or JSON-MIN",
        "a JSON file, or a folder of them",
        ("images",),
    ),
    "csv": (
        read_csv,
        "CSV with columns filename, class, xmin, ymin, xmax, ymax (Roboflow, TensorFlow)",
        "a CSV file, or a folder of them",
        ("images",),
    ),
}


def main() -> int:
    args = make_parser().parse_args()
    try:
        if args.format in READERS:
            read, _, _, options = READERS[args.format]
            splits, classes = read(args.source, class_names=args.names, **{key: getattr(args, key) for key in options})
            report_coco(splits, classes, write_coco(splits, classes, args.output, strict=args.strict))
        else:
            export(args)
    except InputError as error:
        print(f"prepare_dataset: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: %(prog)s yolo my/data.yaml --output my/annotations",
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, (_, what, source, options) in READERS.items():
        reader = formats.add_parser(name, help=what, description=f"From {what}.")
        reader.add_argument("source", metavar="SOURCE", help=source)
        for option in options:
            _add_option(reader, option)
        names = "the classes, in their order (default: all that occur, by alphabet)"
        if name == "masks":
            names = "the class of all objects; of --pixels classes each with its value: road=1 car=2, or car=#00ff00"
        reader.add_argument("--names", nargs="+", default=[], help=names)
        reader.add_argument(
            "--strict", action="store_true", help="stop at what cannot be read, in place of leaving it out"
        )
        reader.add_argument("--output", required=True, metavar="FOLDER", help="where <split>.json go")
    for name, what in (
        ("to-yolo", "from COCO to YOLO's layout"),
        ("to-voc", "from COCO to Pascal VOC's layout"),
        ("crops", "from COCO to images of its objects by class, to pretrain a backbone on"),
    ):
        writer = formats.add_parser(name, help=what, description=f"{what.capitalize()}.")
        writer.add_argument(
            "--annotations", action="append", required=True, metavar="JSON", help="a COCO file; again for each split"
        )
        writer.add_argument("--images", action="append", required=True, metavar="DIR", help="its image folder")
        writer.add_argument(
            "--splits",
            nargs="+",
            default=[],
            metavar="NAME",
            help="train, val or test for each file (default: as its name or its folder's tells)",
        )
        if name == "to-yolo":
            writer.add_argument(
                "--task", choices=TASKS, default="detect", help="boxes, polygons, or keypoints (default: %(default)s)"
            )
        if name == "crops":
            _add_crop_options(writer)
        writer.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="a new or empty folder")
    return parser


def _add_crop_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--context",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="what is cut out beside a box, on each side, in widths and heights of the box (default: %(default)s)",
    )
    parser.add_argument(
        "--min-size",
        type=int,
        default=16,
        metavar="PX",
        help="the shorter side of a box, clipped to its image, at least; smaller objects are left out "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at an image that cannot be read, in place of leaving it out"
    )


def _add_option(parser: argparse.ArgumentParser, option: str) -> None:
    if option == "split_names":
        parser.add_argument(
            "--splits",
            nargs="+",
            default=[],
            dest=option,
            metavar="NAME",
            help="lists of ImageSets/Main (default: train, val, test)",
        )
    elif option == "zero_based":
        parser.add_argument(
            "--zero-based",
            action="store_true",
            help="boxes are edges from 0, as labelImg writes them (default: pixels counted from 1, both ends included)",
        )
    elif option == "ignore_difficult":
        parser.add_argument(
            "--ignore-difficult",
            action="store_true",
            help="leave objects marked difficult out of training and evaluation, as crowds (default: ordinary objects)",
        )
    elif option == "pixels":
        parser.add_argument(
            "--pixels",
            choices=("objects", "classes"),
            default="",
            help="of images/ and masks/: each value is an object, or a class, whose connected parts are objects",
        )
    elif option == "images":
        parser.add_argument(
            "--images", metavar="FOLDER", help="where the images are (default: beside the file, or in images/ near it)"
        )
    elif option == "attribute":
        parser.add_argument(
            "--attribute", default="", metavar="NAME", help="of regions, which has the class (default: the only one)"
        )


def report_coco(splits: Sequence[Split], classes: Classes, paths: Sequence[Path]) -> None:
    for split, path in zip(splits, paths, strict=True):
        counts = count_objects(split, classes.names)
        print(f"{path} {split.image_folder}: {len(split.images)} images, {sum(counts.values())} objects")
        print("".join(f"  {count:7d} {name}\n" for name, count in counts.items()), end="")
        for line in describe_losses(split):
            print(f"  {line}")


def export(args: argparse.Namespace) -> None:
    if len(args.annotations) != len(args.images):
        raise InputError(
            f"{len(args.annotations)} --annotations, but {len(args.images)} --images; each needs the other"
        )
    sets = read_sets(list(zip(args.annotations, args.images, strict=True)), args.splits)
    make_new_folder(args.output)
    if args.format == "crops":
        options = {"context": args.context, "min_size": args.min_size, "strict": args.strict}
        report_crops(sets, write_crops(sets, args.output, **options), args.output)
        return
    path = write_yolo(sets, args.output, args.task) if args.format == "to-yolo" else write_voc(sets, args.output)
    for one in sets:
        crowds = int(one.data.crowd.sum())
        print(f"{path} {one.name}: {len(one.data.images)} images, {len(one.data.annotations) - crowds} objects")
        for line in describe_export(one):
            print(f"  {line}")


def report_crops(sets: Sequence[ExportedSet], counts: Sequence[Counter[str]], folder: Path) -> None:
    for one, written in zip(sets, counts, strict=True):
        print(f"{folder / one.name}: {written.total()} objects of {len(one.data.images)} images")
        print("".join(f"  {count:7d} {name}\n" for name, count in written.items()), end="")
        for line in describe_export(one):
            print(f"  {line}")
        empty = [name for name, count in written.items() if not count]
        if empty:
            print(f"  no folder of {', '.join(empty)}: a classifier has the classes that all splits have")


if __name__ == "__main__":
    sys.exit(main())
