"""A training step: forward, losses, backward and SGD, of backbones with FPN or of a whole detector.

Without --config-file, an R-50-FPN backbone with frozen norms runs on random numbers, and the loss is a weighted mean of
its features. With it, whole detectors run on a batch of DATASETS.TRAIN. The learning rate is 0: the weights stay equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from resnet_det.benchmark.arguments import PRECISIONS, add_model_arguments, split_against
from resnet_det.benchmark.compare import Comparison, compare
from resnet_det.benchmark.models import (
    AGAINST,
    TRAINABLE_DETECTORS,
    autocast,
    backbone_cfg,
    build_backbones,
    build_detectors,
    build_ours_like,
)
from resnet_det.engine.loaders import build_train_loader
from resnet_det.engine.startup import setup_cfg

CHECKPOINT_OPTS = ["MODEL.RESNET_DET.CHECKPOINT_STAGES", "[True, True, True, True]"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, against=AGAINST, detectors_against=TRAINABLE_DETECTORS)
    parser.add_argument("--compile", action="store_true", help="ours compiled, too; the first step takes minutes")
    parser.add_argument("--checkpoint", action="store_true", help="ours with activation checkpointing, too")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(320, 480), metavar=("H", "W"), help="of random images (default: 320 480)"
    )
    parser.add_argument("--batch-size", type=int, default=2, metavar="N", help="images in a step (default: 2)")
    parser.add_argument("--freeze-at", type=int, default=2, metavar="N", help="MODEL.BACKBONE.FREEZE_AT (default: 2)")


def run(args: argparse.Namespace) -> Iterator[Comparison]:
    """
    Raises:
        InputError: a config that does not work or cannot be compared.
    """
    against = split_against(args.against, TRAINABLE_DETECTORS if args.config_file else AGAINST)
    for depth in args.depths or [None]:
        yield run_detectors(args, depth, against) if args.config_file else run_backbones(args, depth or 50, against)


def run_backbones(args: argparse.Namespace, depth: int, against: list[str]) -> Comparison:
    """One depth of the backbone with FPN on random numbers."""
    cfg = backbone_cfg(depth, args.opts, freeze_at=args.freeze_at)
    models = _add_variants(args, cfg, build_backbones(cfg, against))
    image = torch.randn(args.batch_size, 3, *args.size, device=args.device)
    models["resnet_det"].to(args.device)
    weights = {
        name: torch.randn(feature.shape, device=args.device) for name, feature in models["resnet_det"](image).items()
    }

    def loss(model: Callable) -> torch.Tensor:
        return sum((feature.float() * weights[name]).mean() for name, feature in model(image).items())

    height, width = args.size
    return compare(
        f"train: R-{depth}-FPN backbone, FREEZE_AT {args.freeze_at}, {args.batch_size} images of {height}x{width}, "
        f"on {args.device}",
        _make_contenders(args, models, loss),
        pairs=args.pairs,
        items=args.batch_size,
        device=args.device,
        with_memory=True,
    )


def run_detectors(args: argparse.Namespace, depth: int | None, against: list[str]) -> Comparison:
    """A whole detector on one batch."""
    opts = [*args.opts, "MODEL.DEVICE", args.device, "SOLVER.IMS_PER_BATCH", str(args.batch_size)]
    opts += ["MODEL.BACKBONE.FREEZE_AT", str(args.freeze_at), "MODEL.WEIGHTS", "", "DATALOADER.NUM_WORKERS", "0"]
    opts += ["MODEL.RESNETS.DEPTH", str(depth)] if depth else []
    cfg = setup_cfg(argparse.Namespace(config_file=args.config_file, opts=opts))
    models = _add_variants(args, cfg, build_detectors(cfg, against))
    batch = next(iter(build_train_loader(cfg, seed=0)))

    def loss(model: Callable) -> torch.Tensor:
        torch.manual_seed(0)  # proposals and anchors are sampled
        with EventStorage():
            return sum(model(batch).values())

    return compare(
        f"train: {args.config_file}, R-{cfg.MODEL.RESNETS.DEPTH}, FREEZE_AT {args.freeze_at}, {args.batch_size} images "
        f"of {cfg.DATASETS.TRAIN[0]}, on {args.device}",
        _make_contenders(args, models, loss),
        pairs=args.pairs,
        items=args.batch_size,
        device=args.device,
        with_memory=True,
    )


def _add_variants(args: argparse.Namespace, cfg: CfgNode, models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Ours with checkpointing and compiled, as asked for; all in training."""
    ours = models["resnet_det"]
    if args.checkpoint:
        models["resnet_det checkpointed"] = build_ours_like(ours, cfg, CHECKPOINT_OPTS)
    if args.compile:
        models["resnet_det compiled"] = build_ours_like(ours, cfg, [])
        compiled = models["resnet_det compiled"]
        getattr(compiled, "backbone", compiled).compile(dynamic=True)
    return {title: model.train().to(args.device) for title, model in models.items()}


def _make_contenders(
    args: argparse.Namespace, models: dict[str, nn.Module], loss: Callable[[Callable], torch.Tensor]
) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        f"{title} {precision}": _make_step(model, loss, args.device, PRECISIONS[precision])
        for precision in args.precision
        for title, model in models.items()
    }


def _make_step(
    model: nn.Module, loss: Callable[[Callable], torch.Tensor], device: str, dtype: torch.dtype
) -> Callable[[], dict[str, Any]]:
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.0, momentum=0.9)
    run = autocast(model, device, dtype)

    def step() -> dict[str, Any]:
        total = loss(run)
        total.backward()
        optimizer.step()
        gradients = {name: parameter.grad for name, parameter in parameters.items()}
        optimizer.zero_grad()
        return {"loss": total.detach(), "gradients": gradients}

    return step
