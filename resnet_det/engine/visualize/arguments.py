"""The flags of tools/visualize.py, and the config that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from resnet_det.config import check_cfg, merge_cfg
from resnet_det.data import prepare_dataset, register_cfg_datasets, set_num_classes
from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.data.loading.fit import fit_to_shown_set
from resnet_det.engine.slicing import add_slice_arguments, set_slice_keys_
from resnet_det.engine.startup import fall_back_to_cpu, use_own_data
from resnet_det.engine.visualize.inputs import VIDEO_SUFFIXES
from resnet_det.engine.visualize.results import ERROR_CHOICES
from resnet_det.errors import InputError
from resnet_det.visualization.album import PICTURE_FORMATS

DEFAULT_NUM_IMAGES = 50

EPILOG = """
Examples:
  photos and videos:    %(prog)s --config-file output/demo/config.yaml --input photos/ clip.mp4 --output drawn/
                            --opts MODEL.WEIGHTS output/demo/model_final.pth
  a camera:             %(prog)s --config-file ... --webcam --opts MODEL.WEIGHTS ...
  large images:         %(prog)s --config-file ... --input a.tif --slice 640 --output drawn/ --opts MODEL.WEIGHTS ...
  an exported model:    %(prog)s --exported exported/ --input photos/ --output drawn/
  saved results:        %(prog)s --results results.json --annotations val.json --images val/ --output beside/
  the training data:    %(prog)s --config-file ... --dataset resnet_det_demo_train --output data/
  what the net sees:    %(prog)s --config-file ... --features --input photo.jpg --output seen/ --opts MODEL.WEIGHTS ...
Flags that Detectron2's demo has, too, mean the same. Exit status 1 if an image or video could not be read: it is named
and passed over. Exit status 2 for a wrong input.
"""


def add_detector_arguments(parser: argparse._ActionsContainer) -> None:
    """``--config-file`` and ``--exported``."""
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="config of the model, such as config.yaml in OUTPUT_DIR"
    )
    parser.add_argument(
        "--exported",
        metavar="PATH",
        help="in place of --config-file: a detector that tools/export_model.py has written, its file or folder",
    )


def build_visualize_parser() -> argparse.ArgumentParser:
    """The flags of Detectron2's demo, and those for saved results, training data and features."""
    parser = argparse.ArgumentParser(
        description="Look at what a model finds (--input, --webcam), at saved results beside the ground truth "
        "(--results), at training data before and after augmentation (--dataset), and at feature maps (--features).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_detector_arguments(parser)
    what = parser.add_argument_group("what is shown, and where")
    source = what.add_mutually_exclusive_group()
    source.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="images, videos, folders of them, or patterns such as 'a/*.jpg'; of stacks each page, or 'stack.tif#3'",
    )
    source.add_argument("--video-input", metavar="FILE", help="a video, whatever its suffix")
    source.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="NUMBER", help="a camera (default: the first, 0); q ends it"
    )
    source.add_argument(
        "--results", metavar="FILE", help="predictions in COCO format, such as inference/coco_instances_results.json"
    )
    what.add_argument(
        "--dataset",
        metavar="NAME",
        help="alone: a data set before and after the config's augmentation; with --results: the set they belong to "
        "(default: the first of DATASETS.TEST)",
    )
    what.add_argument("--annotations", metavar="FILE", help="with --results: an own COCO file in place of --dataset")
    what.add_argument("--images", metavar="FOLDER", help="with --annotations: where their images are")
    what.add_argument(
        "--features",
        action="store_true",
        help="with --input: the feature maps of each image, and where the score of its best detections comes from",
    )
    what.add_argument(
        "--output",
        metavar="FOLDER",
        help="pictures, videos, gallery.html, and with --input also coco_instances_results.json with what is shown; "
        "for a single input a file, too. Without it: a window",
    )
    filters = parser.add_argument_group("filters")
    filters.add_argument(
        "--confidence-threshold", type=float, default=0.5, metavar="SCORE", help="lowest score shown (default: 0.5)"
    )
    filters.add_argument("--classes", nargs="+", metavar="NAME", help="show these classes alone")
    filters.add_argument(
        "--error-type",
        nargs="+",
        type=str.lower,
        choices=ERROR_CHOICES,
        metavar="TYPE",
        default=[],
        help="with --results: the images that have these, and of the detections these alone: correct, cls (another "
        "class), loc (overlap too small), both, dupe (found twice), bkg (nothing there), miss (not found), as "
        "tools/evaluate.py tells them",
    )
    filters.add_argument(
        "--num-images",
        type=int,
        metavar="N",
        help=f"at most so many images, and frames of a video (default: {DEFAULT_NUM_IMAGES} with --results and "
        "--dataset, else all)",
    )
    more = parser.add_argument_group("more")
    more.add_argument(
        "--picture-format",
        choices=PICTURE_FORMATS,
        default=PICTURE_FORMATS[0],
        help="of the pictures in the folder (default: png, without loss; jpg: about a tenth of the size for photos)",
    )
    more.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="images that go through the model together (default: 4)"
    )
    add_slice_arguments(more)
    more.add_argument(
        "--num-augmented", type=int, default=2, metavar="N", help="with --dataset: versions of each image (default: 2)"
    )
    more.add_argument(
        "--num-detections", type=int, default=3, metavar="N", help="with --features: detections explained (default: 3)"
    )
    more.add_argument(
        "--level", metavar="NAME", help="with --features: level to explain by, such as res5 (default: the one used)"
    )
    more.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs that change the config; the last flag"
    )
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """
    Raises:
        InputError: flags that make no sense, or not together.
    """
    has_input = bool(args.input or args.video_input)
    shows_data = bool(args.dataset) and not (has_input or args.webcam is not None or args.results)
    problems = []
    if not (has_input or args.webcam is not None or args.results or shows_data):
        problems.append("nothing to show: give --input, --webcam, --results or --dataset")
    if args.dataset and not (args.results or shows_data):
        problems.append("--dataset stands alone or with --results")
    if (args.annotations is None) != (args.images is None):
        problems.append("--annotations and --images go together")
    if args.annotations and not args.results:
        problems.append("--annotations goes with --results")
    if args.annotations and args.dataset:
        problems.append("--annotations and --dataset both name a data set: give one")
    if args.error_type and not args.results:
        problems.append("--error-type goes with --results")
    if args.exported:
        others = {"--config-file": args.config_file, "--opts": args.opts, "--features": args.features}
        others |= {"--results": args.results, "--dataset": args.dataset}
        given = [flag for flag, value in others.items() if value]
        if given:
            problems.append(
                f"--exported goes with --input, --video-input and --webcam, and not with {', '.join(given)}"
            )
    if args.slice is not None and (args.features or not (has_input or args.webcam is not None)):
        problems.append("--slice goes with --input, --video-input and --webcam, and not with --features")
    if args.features and not args.input:
        problems.append("--features needs --input")
    for flag, least in (("batch_size", 1), ("num_augmented", 1), ("num_detections", 0), ("num_images", 1)):
        value = getattr(args, flag)
        if value is not None and value < least:
            problems.append(f"--{flag.replace('_', '-')} {value}: at least {least}")
    if not args.output and (args.results or args.features or shows_data):
        problems.append("--output is needed: the folder for the pictures")
    if args.output and args.output.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)):
        one_input = args.webcam is not None or args.video_input or (args.input and len(args.input) == 1)
        if args.features or not one_input:
            problems.append(f"--output {args.output}: a file is for a single image or video; give a folder")
    if problems:
        raise InputError.from_problems("command line", problems)


def setup_visualize_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen config of ``args``. Unlike training, a model that looks at photos needs no data set: where it is
    absent, only the names of the classes are missing.

    Raises:
        InputError: something in it cannot work; all problems found are listed.
    """
    check_arguments(args)
    cfg = merge_cfg(args.config_file, args.opts or [])
    set_slice_keys_(cfg, args)
    if args.annotations:
        use_own_data(cfg, "test", args.annotations, args.images)
    fall_back_to_cpu(cfg)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = args.confidence_threshold
    problems = check_cfg(cfg)
    if problems:
        raise InputError.from_problems(args.config_file or "config", problems)
    register_cfg_datasets(cfg, [args.dataset] if args.dataset else [])
    if args.dataset and not args.results:
        fit_to_shown_set(cfg, args.dataset)
    if args.input or args.video_input or args.webcam is not None:
        fit_to_known_dataset_(cfg)
    cfg.freeze()
    return cfg


def fit_to_known_dataset_(cfg: CfgNode) -> None:
    """Let ``cfg`` have the classes of the first of its data sets that is known here, if one is."""
    name = find_known_dataset((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN))
    if name is not None:
        set_num_classes(cfg, [name])


def find_known_dataset(names: Sequence[str]) -> str | None:
    """The first of these data sets whose classes are known here; None if none is."""
    for name in names:
        if MetadataCatalog.get(name).get("thing_classes") is None:
            try:
                prepare_dataset(name)
            except InputError:
                continue
        if MetadataCatalog.get(name).get("thing_classes") is not None:
            return name
    return None
