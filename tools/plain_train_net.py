#!/usr/bin/env python
"""Training and evaluation in one loop, to read, or to begin your own with: our backbone, Detectron2's parts.

It has none of what tools/train_net.py promises: no resuming, mixed precision, several processes or checks.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage, JSONWriter

from resnet_det import use_fast_roi_align
from resnet_det.config import merge_cfg
from resnet_det.data import prepare_cfg_datasets, register_cfg_datasets
from resnet_det.engine.initial_weights import load_initial_weights, load_trained_weights
from resnet_det.errors import InputError
from resnet_det.evaluation import build_evaluator, write_results


def make_cfg(args):
    cfg = merge_cfg(args.config_file, args.opts)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    register_cfg_datasets(cfg)
    prepare_cfg_datasets(cfg, () if args.eval_only else cfg.DATASETS.TRAIN)  # the number of classes, among others
    return cfg


def train(cfg, model):
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    writer = JSONWriter(str(Path(cfg.OUTPUT_DIR, "metrics.json")))
    with EventStorage() as storage:
        for iteration, batch in enumerate(itertools.islice(build_detection_train_loader(cfg), cfg.SOLVER.MAX_ITER)):
            storage.iter = iteration
            losses = model(batch)
            loss = sum(losses.values())
            if not torch.isfinite(loss):
                raise FloatingPointError(f"iteration {iteration}: {losses}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            storage.put_scalars(total_loss=loss.item(), **{name: value.item() for name, value in losses.items()})
            scheduler.step()
            if iteration % 20 == 19 or iteration == cfg.SOLVER.MAX_ITER - 1:
                writer.write()
                print(f"iteration {iteration}: loss {loss.item():.3f}")
    torch.save({"model": model.state_dict()}, Path(cfg.OUTPUT_DIR, "model_final.pth"))


def evaluate(cfg, model):
    results = {
        name: inference_on_dataset(model, build_detection_test_loader(cfg, name), build_evaluator(cfg, name))
        for name in cfg.DATASETS.TEST
    }
    return results[cfg.DATASETS.TEST[0]] if len(results) == 1 else results


def run(args):
    cfg = make_cfg(args)
    if not args.eval_only and Path(cfg.OUTPUT_DIR, "model_final.pth").exists():
        raise InputError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds a model_final.pth: set another one")
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    model = build_model(cfg)
    use_fast_roi_align(model)
    if args.eval_only:
        load_trained_weights(cfg, model)
    else:
        load_initial_weights(cfg, model)
        train(cfg, model)
    if cfg.DATASETS.TEST:
        results = evaluate(cfg, model)
        write_results(results, cfg.OUTPUT_DIR)
        print(json.dumps(results, indent=2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="any Detectron2 config with one of our backbones")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    try:
        run(args)
    except InputError as error:
        print(f"plain_train_net: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
