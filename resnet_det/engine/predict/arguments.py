"""The flags of tools/predict.py, and the config that they make."""

from __future__ import annotations

import argparse
import os

from detectron2.config import CfgNode

from resnet_det.config import check_cfg, merge_cfg
from resnet_det.data import register_cfg_datasets
from resnet_det.engine.predict.results import WRITERS
from resnet_det.engine.slicing import add_slice_arguments, set_slice_keys_
from resnet_det.engine.startup import fall_back_to_cpu
from resnet_det.engine.visualize.arguments import add_detector_arguments, fit_to_known_dataset_
from resnet_det.errors import InputError

EPILOG = """
Examples:
  a folder:          %(prog)s photos/ --config-file output/demo/config.yaml --output predictions/
                         --opts MODEL.WEIGHTS output/demo/model_final.pth
  tar shards:        %(prog)s 'shards/data-{000..127}.tar' 'more/*.tar.gz' --exported exported/ --output predictions/
  a list, on 4 GPUs: torchrun --nproc-per-node 4 %(prog)s list.txt --config-file ... --output predictions/ --opts ...
  AP of the results: evaluate.py --annotations val.json --results predictions/
                         (with --confidence-threshold 0 and the images of val.json)
What was interrupted goes on where it was with the same call, with any number of processes. Exit status 1 if an image
could not be read: it is listed in bad_images.jsonl and passed over. Exit status 2 for a wrong input.
"""


def build_predict_parser() -> argparse.ArgumentParser:
    """The flags of tools/predict.py; those that tools/visualize.py has, too, mean the same."""
    parser = argparse.ArgumentParser(
        description="Predict on any number of images, with one process or several (torchrun), and write what is found "
        "in shards.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders (searched through), text files with a path a line (from the list's folder on), tar shards, "
        "images, and patterns of all these, such as 'a/*.jpg' or 'data-{000..012}.tar'; of TIFF stacks and DICOM files "
        "each page is an image, and 'stack.tif#3' is the fourth",
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="new, or with predictions of the same call to go on with"
    )
    detector = parser.add_argument_group("detector")
    add_detector_arguments(detector)
    detector.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs that change the config; the last flag"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--confidence-threshold", type=float, default=0.5, metavar="SCORE", help="lowest score kept (default: 0.5)"
    )
    results.add_argument(
        "--format",
        choices=sorted(WRITERS),
        default="jsonl",
        help="of the results, one line or row for each image (default: jsonl; parquet needs pyarrow)",
    )
    results.add_argument(
        "--shard-size",
        type=int,
        default=1000,
        metavar="N",
        help="image files in one file of results, which is what an interruption loses at most (default: 1000); a tar "
        "shard makes one file, whatever is in it",
    )
    add_slice_arguments(detector)
    work = parser.add_argument_group("work")
    work.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="images that go through the model together (default: 4)"
    )
    work.add_argument(
        "--num-workers",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="threads of each process that read and decode images ahead of the model (default: one a core, up to 8)",
    )
    work.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each process that a model on the CPU computes with; the last digits of scores depend on it "
        "(default: as in the predictions that are gone on with, else OMP_NUM_THREADS, else one a core)",
    )
    return parser


def setup_predict_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen config of ``args``.

    Raises:
        InputError: flags that make no sense, or something in the config cannot work; all problems found are listed.
    """
    problems = [
        f"--{name} {value}: at least 1"
        for name, value in (
            ("shard-size", args.shard_size),
            ("batch-size", args.batch_size),
            ("num-workers", args.num_workers),
            ("threads", args.threads),
        )
        if value is not None and value < 1
    ]
    given = [flag for flag, value in (("--config-file", args.config_file), ("--opts", args.opts)) if value]
    if args.exported and given:
        problems.append(f"--exported is a whole detector, and goes without {' and '.join(given)}")
    if not args.exported and not args.config_file:
        problems.append("no detector: give --config-file and --opts MODEL.WEIGHTS, or --exported")
    if problems:
        raise InputError.from_problems("command line", problems)
    cfg = merge_cfg(args.config_file, args.opts)
    set_slice_keys_(cfg, args)
    if not args.exported:
        fall_back_to_cpu(cfg)
    problems = check_cfg(cfg)
    if problems:
        raise InputError.from_problems(args.config_file or "config", problems)
    register_cfg_datasets(cfg, [])
    if not args.exported:
        fit_to_known_dataset_(cfg)
    cfg.freeze()
    return cfg
