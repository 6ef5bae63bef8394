"""What tools/train_net.py does in each process: train, or evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from resnet_det.engine.precision import prepare_as_configured
from resnet_det.engine.report import write_run_reports
from resnet_det.engine.startup import setup_cfg
from resnet_det.engine.trainer import Trainer
from resnet_det.engine.weights import load_trained_weights
from resnet_det.evaluation import write_results


def train_or_evaluate(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or with ``--eval-only`` evaluate, what ``args`` describe (see ``build_train_parser``).

    Returns:
        Evaluation results, 0 to 100, also in OUTPUT_DIR/results.json; None in other processes than the first.
    """
    logger = setup_logger(name="resnet_det", distributed_rank=comm.get_rank())
    cfg = setup_cfg(args)
    logger.handlers.clear()  # from here on with a file in OUTPUT_DIR
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, name="resnet_det", distributed_rank=comm.get_rank())
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        if results is not None:
            final = "model_final.pth" if trainer.ema is None else "model_final_ema.pth"
            write_run_reports(cfg, Path(cfg.OUTPUT_DIR, final))
        return results
    model = Trainer.build_model(cfg)
    checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    if args.resume and checkpointer.has_checkpoint():
        weights = checkpointer.get_checkpoint_file()
        checkpointer.resume_or_load("", resume=True)
    else:
        weights = cfg.MODEL.WEIGHTS
        load_trained_weights(cfg, model)
    results = Trainer.test(cfg, prepare_as_configured(cfg, model))
    if not comm.is_main_process():
        return None
    write_results(results, cfg.OUTPUT_DIR)
    write_run_reports(cfg, Path(weights))
    verify_results(cfg, results)
    return results
