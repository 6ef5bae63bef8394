"""What tools/lazyconfig_train_net.py does in each process: train, or evaluate, what a LazyConfig describes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from resnet_det.config.yaml_files import read_yaml
from resnet_det.data import make_train_loader
from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.step import TrainStep
from resnet_det.errors import InputError
from resnet_det.evaluation import write_results
from resnet_det.weights import load_weights

logger = logging.getLogger(__name__)


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
    if cfg.train.device.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("train.device is %r, but torch finds no CUDA device: using the CPU", cfg.train.device)
        cfg.train.device = "cpu"
    return cfg


def train_or_evaluate_lazy(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate, what ``args`` describe.

    Returns:
        Evaluation results, 0 to 100, also in train.output_dir/results.json; None in other processes than the first.
    """
    setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    cfg = load_lazy_config(args.config_file, args.opts)
    default_setup(cfg, args)
    model = instantiate(cfg.model).to(cfg.train.device)
    if args.eval_only:
        report = load_weights(model, cfg.train.init_checkpoint)
        if report.missing or report.wrong_shape:
            raise InputError(f"train.init_checkpoint: not the weights of this detector\n{report}")
        return _evaluate(cfg, model)
    return _train(cfg, model, resume=args.resume)


def _train(cfg: DictConfig, model: nn.Module, *, resume: bool) -> dict[str, Any] | None:
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    if comm.get_world_size() > 1:
        device_ids = [comm.get_local_rank()] if cfg.train.device.startswith("cuda") else None
        model = DistributedDataParallel(model, device_ids=device_ids, **cfg.train.ddp)
    amp_dtype = getattr(torch, cfg.train.amp.dtype) if cfg.train.amp.enabled else None
    trainer = TrainStep(
        model,
        lambda start_iter: iter(_build_train_loader(cfg, trainer.seed, start_iter)),
        optimizer,
        amp_dtype=amp_dtype,
        seed=comm.shared_random_seed() if cfg.train.get("seed", -1) < 0 else cfg.train.seed,
        output_dir=cfg.train.output_dir,
    )
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any] | None:
        found = _evaluate(cfg, model)
        results.update(found or {})
        return found

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if comm.is_main_process() else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(default_writers(cfg.train.output_dir, cfg.train.max_iter), cfg.train.log_period)
            if comm.is_main_process()
            else None,
        ]
    )
    iteration = checkpointer.resume_last() if resume else None
    if iteration is None and cfg.train.init_checkpoint:
        logger.info("%s", load_weights(model, cfg.train.init_checkpoint))
    trainer.train(0 if iteration is None else iteration + 1, cfg.train.max_iter)
    return results or None


def _build_train_loader(cfg: DictConfig, seed: int, start_iter: int) -> DataLoader:
    """From ``start_iter`` on if the loader is ours; Detectron2's begins anew after a resume."""
    node = cfg.dataloader.train
    ours = (make_train_loader, f"{make_train_loader.__module__}.{make_train_loader.__qualname__}")
    if node["_target_"] in ours:  # by name in a config that was saved
        return instantiate({**node, "seed": seed, "start_step": start_iter})
    return instantiate(node)


def _evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any] | None:
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    if not comm.is_main_process():
        return None
    print_csv_format(results)
    write_results(results, cfg.train.output_dir)
    return results
