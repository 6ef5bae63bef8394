"""What tools/lazyconfig_train_net.py does in each process: train, or evaluate, what a LazyConfig describes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase, default_argument_parser, default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.solver.lr_scheduler import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from resnet_det.config.yaml_files import read_yaml
from resnet_det.data import make_train_loader
from resnet_det.engine.agreement import decide_once
from resnet_det.engine.arguments import add_overwrite_flag
from resnet_det.engine.hooks import (
    BestWeights,
    CheckpointHook,
    EvaluationHook,
    ProfileHook,
    SignalHook,
    SkippedImagesHook,
    ThroughputHook,
)
from resnet_det.engine.life import TrainingRun
from resnet_det.engine.model_setup import share_among_processes
from resnet_det.engine.run_folder import check_evaluation, choose_start, clear_run
from resnet_det.engine.startup import choose_device
from resnet_det.engine.step import TrainStep
from resnet_det.errors import InputError
from resnet_det.evaluation import write_results
from resnet_det.modeling import speed_up_on_cpus_
from resnet_det.weights import load_weights

logger = logging.getLogger(__name__)

EPILOG = """
Examples:
  COCO on 8 GPUs:     {prog} --config-file configs/lazy/COCO-Detection/faster_rcnn_R_50_FPN_1x.py --num-gpus 8
  another depth:      {prog} --config-file ... model.backbone.bottom_up.depth=101
  evaluation alone:   {prog} --config-file ... --eval-only train.init_checkpoint=output/model_final.pth
"""


def load_lazy_config(config_file: str, opts: list[str]) -> DictConfig:
    """The LazyConfig in ``config_file``, changed by ``key=value`` pairs; on the CPU where there is no CUDA.

    Raises:
        InputError: there is no such file, or a pair cannot be applied.
    """
    if not Path(config_file).is_file():
        raise InputError(f"--config-file {config_file}: no such file")
    try:
        if config_file.endswith((".yaml", ".yml")):  # read as data; LazyConfig.load would run what it asks for
            cfg = OmegaConf.create(read_yaml(config_file), flags={"allow_objects": True})
        else:
            cfg = LazyConfig.load(config_file)
    except yaml.YAMLError as error:
        raise InputError(f"{config_file}: not a yaml file: {error}") from None
    try:
        cfg = LazyConfig.apply_overrides(cfg, opts)
    except Exception as error:  # the parser's own kinds of error
        raise InputError(f"command line: key=value pairs expected, got {' '.join(opts)!r}: {error}") from None
    cfg.train.device = choose_device(cfg.train.device, "train.device")
    return cfg


def build_lazy_parser() -> argparse.ArgumentParser:
    """Detectron2's own flags, and --overwrite."""
    parser = default_argument_parser(epilog=EPILOG.format(prog=os.path.relpath(sys.argv[0])))
    add_overwrite_flag(parser)
    return parser


def train_or_evaluate_lazy(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate, what ``args`` describe.

    Returns:
        Evaluation results, 0 to 100, also in train.output_dir/results.json; None in other processes than the first.
    """
    logger = setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    cfg = load_lazy_config(args.config_file, args.opts)
    output_dir = cfg.train.output_dir
    if not args.eval_only:
        args.resume = decide_once(lambda: choose_start(output_dir, resume=args.resume, overwrite=args.overwrite))
        if args.overwrite and not args.resume:
            decide_once(lambda: clear_run(output_dir, keep=[args.config_file, cfg.train.init_checkpoint]))
    elif not args.resume:
        decide_once(lambda: check_evaluation(output_dir, cfg.train.init_checkpoint))
    logger.handlers.clear()  # from here on with a file in train.output_dir
    default_setup(cfg, args)
    setup_logger(output_dir, name="resnet_det", distributed_rank=comm.get_rank())
    model = instantiate(cfg.model).to(cfg.train.device)
    speed_up_on_cpus_(model)
    if args.eval_only:
        report = load_weights(model, cfg.train.init_checkpoint)
        if report.missing or report.wrong_shape:
            raise InputError(f"train.init_checkpoint: not the weights of this detector\n{report}")
        results = _evaluate(cfg, model)
        if results is not None:
            write_results(results, output_dir)
        return results
    run = LazyRun(cfg, model)
    run.resume_or_load(resume=args.resume)
    return run.train()


class LazyRun(TrainingRun):
    """A run as of tools/train_net.py: the same steps, checkpoints and hooks, from what a LazyConfig builds.

    Beside Detectron2's keys, ``train`` may have accumulate, clip_grad_norm, ema_decay, best_metric, best_direction,
    early_stopping, grace_seconds and profile, which mean what RESNET_DET.TRAIN's keys do.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module) -> None:
        self.cfg = cfg
        train = cfg.train
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
        self.optimizer = optimizer
        step = TrainStep(
            share_among_processes(model, **train.get("ddp", {})),
            lambda start_iter: iter(_build_train_loader(cfg, self.seed, start_iter)),
            optimizer,
            amp_dtype=getattr(torch, train.amp.get("dtype", "float16")) if train.amp.enabled else None,
            accumulate=_read_accumulate(cfg),
            clip_grad_norm=train.get("clip_grad_norm", 0.0),
            ema_decay=train.get("ema_decay", 0.0),
            seed=comm.shared_random_seed() if train.get("seed", -1) < 0 else train.seed,
            output_dir=train.output_dir,
        )
        scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), train.max_iter)
        fixed = {
            "dataloader.train.total_batch_size": cfg.dataloader.train.get("total_batch_size"),
            "train.accumulate": _read_accumulate(cfg),
            "optimizer": _name_target(cfg.optimizer),
        }
        super().__init__(step, scheduler, train.output_dir, train.max_iter, fixed_settings=fixed)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        cfg, train = self.cfg, self.cfg.train
        self.signals = SignalHook(train.get("grace_seconds", 120))
        self.checkpoint_hook = CheckpointHook(train.checkpointer.period, train.checkpointer.get("max_to_keep") or 0)
        if train.get("best_metric"):
            patience, direction = train.get("early_stopping", 0), train.get("best_direction", "")
            self.best = BestWeights(train.best_metric, patience=patience, direction=direction)
        is_main = comm.is_main_process()
        writers = default_writers(train.output_dir, train.max_iter) if is_main else []
        return [
            hooks.IterationTimer(),
            ThroughputHook(_count_images(cfg)),
            hooks.LRScheduler(),
            self.checkpoint_hook,
            self.signals,
            ProfileHook(train.output_dir) if train.get("profile") and is_main else None,
            EvaluationHook(train.eval_period, self.evaluate, self.best) if "evaluator" in cfg.dataloader else None,
            SkippedImagesHook(train.output_dir),
            hooks.PeriodicWriter(writers, train.log_period) if is_main else None,
        ]

    def load_initial_weights(self) -> None:
        if self.cfg.train.init_checkpoint:
            logger.info("%s", load_weights(self.checkpointer.model, self.cfg.train.init_checkpoint))

    def evaluate(self) -> dict[str, Any] | None:
        self._last_eval_results = _evaluate(self.cfg, self.evaluated_model)
        return self._last_eval_results


def _find_target(node: DictConfig) -> Any:
    """What a node calls; in a config that was saved it is a name."""
    target = node["_target_"]
    return locate(target) if isinstance(target, str) else target


def _name_target(node: DictConfig) -> str:
    """What a node calls, by a name that is the same in each process; of a class, as earlier checkpoints have it."""
    target = _find_target(node)
    return str(target) if isinstance(target, type) else f"{target.__module__}.{target.__qualname__}"


def _read_accumulate(cfg: DictConfig) -> int:
    return cfg.train.get("accumulate", 1)


def _count_images(cfg: DictConfig) -> int:
    """Images that an optimizer step takes, of all processes."""
    return cfg.dataloader.train.get("total_batch_size", 1) * _read_accumulate(cfg)


def _build_train_loader(cfg: DictConfig, seed: int, start_iter: int) -> DataLoader:
    """From ``start_iter`` on if the loader is ours; Detectron2's begins anew after a resume."""
    node = cfg.dataloader.train
    if _find_target(node) is make_train_loader:
        return instantiate({**node, "seed": seed, "start_step": start_iter, "accumulate": _read_accumulate(cfg)})
    return instantiate(node)


def _evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any] | None:
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    if not comm.is_main_process():
        return None
    print_csv_format(results)
    return results
