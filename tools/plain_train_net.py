#!/usr/bin/env python
"""Training and evaluation in one loop, to read, or to begin your own with: our backbone, Detectron2's parts.

It has none of what tools/train_net.py promises: no resuming, mixed precision, several processes or checks.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage, JSONWriter

from resnet_det import add_resnet_det_config
from resnet_det.config.yaml_files import merge_yaml_file
from resnet_det.data import prepare_dataset, register_cfg_datasets
from resnet_det.evaluation import build_evaluator, write_results
from resnet_det.weights import load_weights


def make_cfg(args):
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    merge_yaml_file(cfg, args.config_file)
    cfg.merge_from_list(args.opts)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    register_cfg_datasets(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        prepare_dataset(name)
    return cfg


def train(cfg, model):
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    writer = JSONWriter(str(Path(cfg.OUTPUT_DIR, "metrics.json")))
    with EventStorage() as storage:
        for iteration, batch in zip(range(cfg.SOLVER.MAX_ITER), build_detection_train_loader(cfg), strict=False):
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
    results = {}
    for name in cfg.DATASETS.TEST:
        found = inference_on_dataset(model, build_detection_test_loader(cfg, name), build_evaluator(cfg, name))
        results[name] = found
    return results[cfg.DATASETS.TEST[0]] if len(results) == 1 else results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="any Detectron2 config with one of our backbones")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    cfg = make_cfg(args)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=args.eval_only)
    model = build_model(cfg)
    if cfg.MODEL.WEIGHTS:
        print(load_weights(model, cfg.MODEL.WEIGHTS))
    if not args.eval_only:
        train(cfg, model)
    if cfg.DATASETS.TEST:
        results = evaluate(cfg, model)
        write_results(results, cfg.OUTPUT_DIR)
        print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
