"""The command line of tools/train_net.py."""

from __future__ import annotations

import argparse
import os
import sys

from detectron2.engine import default_argument_parser

TRAIN_EPILOG = """
Examples:
  the demo, from nothing:       {prog} --config-file configs/demo/mask_rcnn_R_18_FPN.yaml
  COCO on 8 GPUs:               {prog} --config-file configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml --num-gpus 8
  the same with torchrun:       torchrun --nproc-per-node 8 {prog} --config-file ...
  own data in COCO format:      {prog} --config-file ... --train-data train.json images/ --test-data val.json images/
  another depth:                {prog} --config-file ... MODEL.RESNETS.DEPTH 18
  evaluation alone:             {prog} --config-file output/config.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
  does all of it work?          {prog} --config-file ... --fast-dev-run
"""


def build_train_parser() -> argparse.ArgumentParser:
    """Detectron2's own flags, two for own data, one to try things out, and one to try again."""
    parser = default_argument_parser(epilog=TRAIN_EPILOG.format(prog=os.path.relpath(sys.argv[0])))
    parser.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="two iterations of everything - training, validation loss, evaluation, checkpoints - in a folder "
        "fast_dev_run of OUTPUT_DIR, to see whether all of it works",
    )
    add_overwrite_flag(parser)
    for split in ("train", "test"):
        parser.add_argument(
            f"--{split}-data",
            nargs=2,
            metavar=("ANNOTATIONS", "IMAGES"),
            help=f"own data to {split} on: a COCO annotation file and the folder of its images",
        )
    return parser


def add_overwrite_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the run that OUTPUT_DIR holds, and start anew there"
    )
