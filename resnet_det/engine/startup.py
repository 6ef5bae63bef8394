"""From the command line to a checked, frozen config."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser

from resnet_det.config import add_resnet_det_config, check_cfg
from resnet_det.config.yaml_files import merge_yaml_file
from resnet_det.data import name_own_dataset, prepare_cfg_datasets, register_cfg_datasets
from resnet_det.data.images import set_max_pixels
from resnet_det.engine.agreement import decide_once
from resnet_det.engine.checkpoint import find_checkpoint
from resnet_det.engine.epochs import set_length_in_epochs_
from resnet_det.engine.initial_weights import check_from_scratch, prepare_weights
from resnet_det.engine.loaders import load_train_dicts
from resnet_det.engine.run_folder import choose_start
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

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
    starts_anew = trains and not (args.resume and decide_once(lambda: find_checkpoint(cfg.OUTPUT_DIR)) is not None)
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
        set_length_in_epochs_(cfg, lambda: len(load_train_dicts(cfg)))
    if starts_anew:
        prepare_weights(cfg)
    set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    cfg.freeze()
    return cfg


def merge_cfg(config_file: str, opts: list[str]) -> CfgNode:
    """Defaults, our keys, ``config_file`` and KEY VALUE pairs, not checked.

    Raises:
        InputError: a key or value that no config has.
    """
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    if config_file:
        merge_file(cfg, config_file)
    merge_opts(cfg, opts)
    return cfg


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
    overwrite = getattr(args, "overwrite", False) or getattr(args, "fast_dev_run", False)
    return choose_start(cfg.OUTPUT_DIR, resume=getattr(args, "resume", False), overwrite=overwrite)


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a yaml file into ``cfg``.

    Raises:
        InputError: it is missing, is no yaml, or has a key or value that no config has.
    """
    if not Path(path).is_file():
        raise InputError(f"--config-file {path}: no such file")
    try:
        merge_yaml_file(cfg, path)
    except InputError:
        raise
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(f"{path}: {explain_merge_error(cfg, error)}") from None
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a yaml file with the sections of a config: {error}") from None


def merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    """Merge KEY VALUE pairs into ``cfg``.

    Raises:
        InputError: a key or value that no config has.
    """
    if len(opts) % 2:
        raise InputError(f"command line: KEY VALUE pairs expected, got {' '.join(opts)!r} (flags stand before them)")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError) as error:
            raise InputError(f"command line: {key} {value}: {explain_merge_error(cfg, error, key)}") from None


def explain_merge_error(cfg: CfgNode, error: Exception, key: str = "") -> str:
    """What yacs says of a wrong key or value, in one sentence, with the key that was probably meant."""
    text = str(error.args[0] if error.args else error)
    if "Non-existent" not in text:
        return text
    key = key or text.split(":")[-1].strip()
    meant = difflib.get_close_matches(key, list(_all_keys(cfg)), n=1)
    return f"there is no key {key}" + (f"; did you mean {meant[0]}?" if meant else "")


def _all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys += _all_keys(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [f"{prefix}{key}"]
    return keys


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
    """Set MODEL.DEVICE to "cpu" where there is no CUDA.

    Raises:
        InputError: the machine has a GPU, which torch cannot use: nobody wants to train on the CPU for days by mistake.
    """
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        gpus = list(Path("/dev").glob("nvidia[0-9]*"))
        if gpus and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1"):
            raise InputError(
                f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, and this machine has {len(gpus)} NVIDIA GPUs, but "
                f"torch {torch.__version__} cannot use them: its CUDA ({torch.version.cuda or 'none'}) may be too "
                "new for the driver (nvidia-smi shows it). MODEL.DEVICE cpu trains on the CPU"
            )
        logger.warning("MODEL.DEVICE is %r, but torch finds no CUDA device: using the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"


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
