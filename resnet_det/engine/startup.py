"""From the command line to a checked, frozen config."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch
from detectron2.config import CfgNode

from resnet_det.config import check_cfg, merge_cfg, read_image_input
from resnet_det.data import name_own_dataset, prepare_cfg_datasets, register_cfg_datasets
from resnet_det.engine.agreement import decide_once
from resnet_det.engine.checkpoint import find_checkpoint
from resnet_det.engine.epochs import set_length_in_epochs_
from resnet_det.engine.hooks.best import explain_unknown_metric
from resnet_det.engine.initial_weights import check_from_scratch, prepare_weights
from resnet_det.engine.loaders import load_train_dicts
from resnet_det.engine.resuming import take_matched_keys_
from resnet_det.engine.run_folder import choose_start
from resnet_det.errors import InputError
from resnet_det.evaluation.build import list_metrics
from resnet_det.images.settings import set_image_input, set_max_pixels

logger = logging.getLogger(__name__)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The config of ``args``: defaults, our keys, ``--config-file``, the command line, data sets; checked and frozen.

    Whether a run is resumed is decided here, for all processes, and noted in ``args.resume``.

    Raises:
        InputError: something in it cannot work; all problems found are listed.
    """
    cfg = merge_cfg(args.config_file, args.opts or [])
    for split in ("train", "test"):
        if getattr(args, f"{split}_data", None):
            use_own_data(cfg, split, *getattr(args, f"{split}_data"))
    leave_out_foreign_test_sets(cfg, args)
    if getattr(args, "fast_dev_run", False):
        shorten_(cfg)
    fall_back_to_cpu(cfg)
    trains = not getattr(args, "eval_only", True)
    problems = check_cfg(cfg)
    if trains:
        args.resume = decide_once(lambda: chooses_to_resume(args, cfg))
    resumes = trains and args.resume
    checkpoint = decide_once(lambda: find_checkpoint(cfg.OUTPUT_DIR)) if resumes else None
    starts_anew = trains and checkpoint is None
    if starts_anew:
        problems += check_from_scratch(cfg)
    if problems:
        raise InputError.from_problems(args.config_file or "config", problems)
    register_cfg_datasets(cfg)
    check_output_dir(cfg.OUTPUT_DIR)
    prepare_cfg_datasets(
        cfg,
        cfg.DATASETS.TRAIN if trains else (),
        set_keys=(args.opts or [])[::2],
        follows_data=bool(getattr(args, "train_data", None)),
    )
    if trains:
        check_best_metric(cfg)
        set_length_in_epochs_(cfg, lambda: len(load_train_dicts(cfg)))
    if starts_anew:
        prepare_weights(cfg)
    elif checkpoint is not None:
        take_matched_keys_(cfg, checkpoint)
    set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    set_image_input(read_image_input(cfg))
    cfg.freeze()
    return cfg


def check_best_metric(cfg: CfgNode) -> None:
    """
    Raises:
        InputError: no evaluation will give RESNET_DET.TRAIN.BEST_METRIC.
    """
    metric, known = cfg.RESNET_DET.TRAIN.BEST_METRIC, list_metrics(cfg)
    if metric and not metric.startswith("validation_") and known is not None and metric not in known:
        raise InputError(explain_unknown_metric(metric, known))


def setup_model_cfg(config_file: str, opts: list[str]) -> CfgNode:
    """A checked, frozen config for building a model alone: without data, output folder and weights.

    Raises:
        InputError: something in it cannot work; all problems found are listed.
    """
    cfg = merge_cfg(config_file, opts)
    fall_back_to_cpu(cfg)
    problems = check_cfg(cfg)
    if problems:
        raise InputError.from_problems(config_file, problems)
    cfg.freeze()
    return cfg


def chooses_to_resume(args: argparse.Namespace, cfg: CfgNode) -> bool:
    """Whether the run in OUTPUT_DIR goes on (see :func:`choose_start`)."""
    if args.fast_dev_run and args.resume:
        raise InputError("--fast-dev-run tries things out anew: give it without --resume")
    return choose_start(cfg.OUTPUT_DIR, resume=args.resume, overwrite=args.overwrite or args.fast_dev_run)


def use_own_data(cfg: CfgNode, split: str, annotation_file: str, image_folder: str) -> None:
    """Let DATASETS.TRAIN or DATASETS.TEST be one own set, named after its annotation file, and its folder if needed."""
    files = [os.path.abspath(annotation_file), os.path.abspath(image_folder)]
    name = name_own_dataset(*files, cfg.RESNET_DET.DATA.COCO)
    cfg.RESNET_DET.DATA.COCO = [*cfg.RESNET_DET.DATA.COCO, [name, *files]]
    cfg.DATASETS[split.upper()] = (name,)


def leave_out_foreign_test_sets(cfg: CfgNode, args: argparse.Namespace) -> None:
    """With ``--train-data`` alone, own data are not tested on the set of the config, which nobody asked for.

    A test set that the command line names, or an own one of the config, stays.
    """
    if (
        not getattr(args, "train_data", None)
        or getattr(args, "test_data", None)
        or "DATASETS.TEST" in (args.opts or [])
    ):
        return
    own = {entry[0] for entry in cfg.RESNET_DET.DATA.COCO if entry}
    foreign = [name for name in cfg.DATASETS.TEST if name not in own]
    if foreign:
        cfg.DATASETS.TEST = tuple(name for name in cfg.DATASETS.TEST if name in own)
        logger.warning(
            "Nothing is evaluated on %s, which is not of your data: --test-data ANNOTATIONS IMAGES names your own set",
            ", ".join(foreign),
        )


def shorten_(cfg: CfgNode) -> None:
    """Let everything that a run does happen in two iterations, away from what OUTPUT_DIR holds."""
    cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "fast_dev_run")
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 2, (), 0
    cfg.RESNET_DET.TRAIN.EPOCHS = 0
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = 1
    cfg.TEST.PRECISE_BN.NUM_ITER = 2
    cfg.TEST.EXPECTED_RESULTS = []
    cfg.RESNET_DET.TEST.MAX_IMAGES = 2 * cfg.RESNET_DET.TEST.BATCH_SIZE
    cfg.RESNET_DET.TEST.VAL_LOSS = bool(cfg.DATASETS.TEST)


def fall_back_to_cpu(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu" where there is no CUDA (see :func:`choose_device`)."""
    cfg.MODEL.DEVICE = choose_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")


def choose_device(device: str, key: str) -> str:
    """``device``, which ``key`` asks for, or "cpu" where there is no CUDA.

    Raises:
        InputError: the machine has a GPU, which torch cannot use: nobody wants to train on the CPU for days by mistake.
    """
    if not device.startswith("cuda") or torch.cuda.is_available():
        return device
    gpus = list(Path("/dev").glob("nvidia[0-9]*"))
    if gpus and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1"):
        why = (
            f"its CUDA {torch.version.cuda} may be too new for the driver (nvidia-smi shows it)"
            if torch.version.cuda
            else "it was built for the CPU"
        )
        raise InputError(
            f"{key} is {device!r}, and this machine has {len(gpus)} NVIDIA GPUs, but torch {torch.__version__} cannot "
            f"use them: {why}. Set {key} to cpu to use the CPU"
        )
    logger.warning("%s is %r, but torch finds no CUDA device: using the CPU", key, device)
    return "cpu"


def check_output_dir(path: str) -> None:
    """Make OUTPUT_DIR.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"OUTPUT_DIR {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"OUTPUT_DIR {path}: no permission to write there")
