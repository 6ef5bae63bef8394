"""The command line of tools/train_classifier.py."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from resnet_det.classification.classifier import build_classifier
from resnet_det.classification.image_sets import find_splits
from resnet_det.classification.run import (
    describe_test,
    evaluate,
    load_images,
    make_classification_cfg,
    prepare_run,
    run_training,
    set_classes_,
    tell,
)
from resnet_det.config import check_classification_cfg
from resnet_det.engine.agreement import decide_once
from resnet_det.engine.arguments import add_overwrite_flag
from resnet_det.engine.checkpoint import load_last_weights
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.engine.precision import autocast_for_tests, choose_amp_dtype
from resnet_det.engine.run_folder import check_evaluation, note_evaluated
from resnet_det.engine.startup import check_output_dir, fall_back_to_cpu, shorten_
from resnet_det.errors import InputError
from resnet_det.evaluation import write_results
from resnet_det.modeling import speed_up_on_cpus_

logger = logging.getLogger(__name__)

EPILOG = """
Data are folders with a folder of images for each class (photos/train/cat/1.jpg), tar files of class/name.jpg or of
key.jpg and key.cls (WebDataset), folders of such tar files, or CIFAR's files as they are published.

Examples:
  own images, a ResNet-18:   {prog} --data photos/ MODEL.RESNETS.DEPTH 18 OUTPUT_DIR output/photos
  then detect with it:       tools/train_net.py --config-file configs/COCO-Detection/faster_rcnn_R_18_FPN_1x.yaml
                             --train-data train.json images/ MODEL.WEIGHTS output/photos/classifier.safetensors
  a published recipe:        {prog} --config-file configs/ImageNet-Classification/R_50_torchvision_v2.yaml
                             --data imagenet/ --num-gpus 8
  CIFAR-10:                  {prog} --config-file configs/ImageNet-Classification/R_20_CIFAR10.yaml
                             --data cifar-10-batches-py/
  shorter:                   {prog} ... RESNET_DET.TRAIN.EPOCHS 30
  evaluation alone:          {prog} --config-file output/photos/config.yaml --eval-only --test-data photos/val
                             MODEL.WEIGHTS output/photos/classifier.safetensors OUTPUT_DIR output/evaluated
  does all of it work?       {prog} --data photos/ --fast-dev-run
"""


def build_classifier_parser() -> argparse.ArgumentParser:
    """Detectron2's own flags, three for the images, one to try things out, and one to try again."""
    parser = default_argument_parser(epilog=EPILOG.format(prog=os.path.relpath(sys.argv[0])))
    parser.description = "Train and evaluate an image classifier, to start detectors from. Also runs under torchrun."
    parser.add_argument("--data", metavar="FOLDER", help="a folder of train and val (or test), or CIFAR's own")
    for split in ("train", "test"):
        parser.add_argument(f"--{split}-data", metavar="PATH", help=f"images by class to {split} on")
    parser.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="two iterations of everything in a folder fast_dev_run of OUTPUT_DIR, to see whether all of it works",
    )
    add_overwrite_flag(parser)
    return parser


def train_or_evaluate_classifier(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate, what ``args`` describe.

    Returns:
        Results, also in OUTPUT_DIR/results.json; None in other processes than the first.
    """
    package_logger = setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    cfg = read_cfg(args)
    if args.eval_only:
        return _evaluate(cfg, args)
    start = prepare_run(cfg, resume=args.resume, overwrite=args.overwrite or args.fast_dev_run, keep=[args.config_file])
    args.resume = start.resume
    package_logger.handlers.clear()  # from here on with a file in OUTPUT_DIR
    _set_up(start.cfg, args)
    return run_training(start)


def read_cfg(args: argparse.Namespace) -> CfgNode:
    """The config that ``args`` describe, not checked.

    Raises:
        InputError: a key or value that no config has, or flags that exclude each other.
    """
    cfg = make_classification_cfg(args.config_file, args.opts or [])
    if args.data and (args.train_data or args.test_data):
        raise InputError("--data names both sets: give it alone, or --train-data and --test-data")
    _use_data(cfg, args)
    if args.fast_dev_run:
        if args.resume:
            raise InputError("--fast-dev-run tries things out anew: give it without --resume")
        shorten_(cfg)
        cfg.RESNET_DET.TEST.VAL_LOSS = False
    return cfg


def _use_data(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Let DATASETS be what the flags name. What the config file has in its place is told.

    With ``--train-data`` alone, nothing is tested on the set of the config file, which is of other data.

    Raises:
        InputError: a key of the command line names a set, too.
    """
    paths = dict(zip(("TRAIN", "TEST"), find_splits(args.data), strict=True)) if args.data else {}
    flags = dict.fromkeys(paths, "--data")
    for split, path in (("TRAIN", args.train_data), ("TEST", args.test_data)):
        if path:
            paths[split], flags[split] = path, f"--{split.lower()}-data"
    for split, path in paths.items():
        key = f"DATASETS.{split}"
        if key in (args.opts or [])[::2]:
            raise InputError(f"{flags[split]} and {key} both name the images to {split.lower()} on: leave one out")
        if cfg.DATASETS[split]:
            logger.info("%s %s takes the place of %s %s", flags[split], path, key, ", ".join(cfg.DATASETS[split]))
        cfg.DATASETS[split] = (path,)
    is_foreign = "TRAIN" in paths and "TEST" not in paths and "DATASETS.TEST" not in (args.opts or [])[::2]
    if is_foreign and cfg.DATASETS.TEST:
        logger.warning(
            "Nothing is evaluated on %s, which is not of your data: --test-data PATH names your own set",
            ", ".join(cfg.DATASETS.TEST),
        )
        cfg.DATASETS.TEST = ()


def _set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, name="resnet_det", distributed_rank=comm.get_rank())


def _evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any] | None:
    """Evaluate MODEL.WEIGHTS or, with ``--resume``, what the last checkpoint in OUTPUT_DIR would be evaluated by."""
    fall_back_to_cpu(cfg)
    problems = check_classification_cfg(cfg)
    if not cfg.DATASETS.TEST:
        problems.append("DATASETS.TEST is empty: --test-data names the images")
    if problems:
        raise InputError.from_problems(args.config_file or "config", problems)
    if not args.resume:
        decide_once(lambda: check_evaluation(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS))
    check_output_dir(cfg.OUTPUT_DIR)
    images = load_images(cfg, "test")
    set_classes_(cfg, None, images)
    cfg.freeze()
    package_logger = setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    package_logger.handlers.clear()
    _set_up(cfg, args)
    model = build_classifier(cfg)
    speed_up_on_cpus_(model)
    weights = None
    if args.resume:
        weights = load_last_weights(cfg.OUTPUT_DIR, model, averaged=cfg.RESNET_DET.TRAIN.EMA_DECAY > 0)
    if weights is None:
        load_trained_weights(cfg, model)
    with autocast_for_tests(cfg, choose_amp_dtype(cfg)):
        results = evaluate(cfg, model, images)
    if not comm.is_main_process():
        return None
    logger.info("%s: %s", images.name, tell(results))
    write_results(results, cfg.OUTPUT_DIR, describe_test(cfg, images))
    note_evaluated(cfg.OUTPUT_DIR, weights or Path(cfg.MODEL.WEIGHTS))
    return results
