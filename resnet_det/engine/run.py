"""What tools/train_net.py does in each process: train, or evaluate."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from resnet_det.engine.agreement import decide_once
from resnet_det.engine.augmented_tests import evaluate_with_augmentation
from resnet_det.engine.checkpoint import load_last_weights
from resnet_det.engine.hooks.evaluation import flatten
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.engine.precision import autocast_for_tests, choose_amp_dtype, prepare_as_configured
from resnet_det.engine.run_folder import check_evaluation, clear_run, note_evaluated
from resnet_det.engine.run_report import write_run_reports
from resnet_det.engine.startup import setup_cfg
from resnet_det.engine.trainer import Trainer
from resnet_det.evaluation import describe_use, write_results

logger = logging.getLogger(__name__)


def train_or_evaluate(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate, what ``args`` describe (see ``build_train_parser``).

    Returns:
        Evaluation results, 0 to 100, also in OUTPUT_DIR/results.json; None in other processes than the first.
    """
    logger = setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    cfg = setup_cfg(args)
    if not args.eval_only and not args.resume and (args.overwrite or args.fast_dev_run):
        decide_once(lambda: clear_run(cfg.OUTPUT_DIR, keep=_inputs(cfg, args)))
    if args.eval_only and not args.resume:
        decide_once(lambda: check_evaluation(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS))
    logger.handlers.clear()  # from here on with a file in OUTPUT_DIR
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, name="resnet_det", distributed_rank=comm.get_rank())
    if args.eval_only:
        return evaluate(cfg, resume=args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    if results is not None:
        write_run_reports(cfg, trainer.evaluated_file)
    return results


def _inputs(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    """Files that the run reads."""
    data = [str(part) for entry in cfg.RESNET_DET.DATA.COCO for part in entry[1:]]
    proposals = [*cfg.DATASETS.PROPOSAL_FILES_TRAIN, *cfg.DATASETS.PROPOSAL_FILES_TEST]
    return [args.config_file, cfg.MODEL.WEIGHTS, *data, *proposals]


def evaluate(cfg: CfgNode, *, resume: bool) -> dict[str, Any] | None:
    """Evaluate MODEL.WEIGHTS or, with ``resume``, what the last checkpoint in OUTPUT_DIR would be evaluated by.

    With int8, the model as it is is evaluated first, and the log says what int8 costs.
    """
    model = Trainer.build_model(cfg)
    weights = None
    if resume:
        weights = load_last_weights(cfg.OUTPUT_DIR, model, averaged=cfg.RESNET_DET.TRAIN.EMA_DECAY > 0)
    if weights is None:
        load_trained_weights(cfg, model)
    with autocast_for_tests(cfg, choose_amp_dtype(cfg)):
        plain = Trainer.test(cfg, model) if cfg.RESNET_DET.TEST.PREPARE.endswith("int8") else None
        prepared = prepare_as_configured(cfg, model)
        results = Trainer.test(cfg, prepared)
        augmented = evaluate_with_augmentation(Trainer, cfg, prepared)
    if not comm.is_main_process():
        return None
    if plain is not None:
        _say_cost(cfg, plain, results)
    results.update(augmented)
    write_results(results, cfg.OUTPUT_DIR, describe_use((), cfg.DATASETS.TEST))
    weights = weights or Path(cfg.MODEL.WEIGHTS)
    note_evaluated(cfg.OUTPUT_DIR, weights)
    write_run_reports(cfg, weights)
    verify_results(cfg, results)
    return results


def _say_cost(cfg: CfgNode, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Log the main metrics of the model as it is beside those of the prepared one."""
    old, new = flatten(before), flatten(after)
    for name in old:
        if name.rpartition("/")[2] in ("AP", "PQ", "mIoU"):
            logger.info(
                "%s: %.2f as it is, %.2f prepared (%s): %+.2f",
                name, old[name], new[name], cfg.RESNET_DET.TEST.PREPARE, new[name] - old[name],
            )  # fmt: skip
