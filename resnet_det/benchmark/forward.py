"""Inference: backbones with FPN, or a whole detector on images.

Ours is prepared (resnet_det.prepare_for_inference). Without --config-file, an R-50-FPN backbone runs on random numbers.
With it, whole detectors run on images of DATASETS.TEST, with random weights unless --weights are given. "openvino" is
ours with a backbone and dense head that OpenVINO computes, in int8 too, calibrated on the measured images.
"exported-onnx" and "exported-openvino" are ours as a whole in a file (tools/export_model.py), run by ONNX Runtime and
OpenVINO.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from resnet_det.analysis.cost import count_macs
from resnet_det.benchmark.arguments import WITH_INT8, add_model_arguments, split_against
from resnet_det.benchmark.compare import Comparison, compare
from resnet_det.benchmark.contenders import INT8_ALONE, exported_contenders, inference_contenders
from resnet_det.benchmark.difference import count_equal_detections
from resnet_det.benchmark.machine import measure_matmul_flops
from resnet_det.benchmark.models import (
    AGAINST,
    DETECTORS,
    EXPORTED,
    backbone_cfg,
    build_backbones,
    build_detectors,
)
from resnet_det.engine.loaders import build_test_loader
from resnet_det.engine.startup import setup_cfg
from resnet_det.errors import InputError

SATURATED = 0.999  # a score of which random weights give many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, against=AGAINST, detectors_against=DETECTORS, precisions=WITH_INT8)
    parser.add_argument(
        "--compile", action="store_true", help="ours with a compiled backbone, too; the first run takes minutes"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="of random images (default: 480 640)"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="random images (default: 1)")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="of a trained detector, with --config-file (default: random)"
    )
    parser.add_argument(
        "--num-images", type=int, default=8, metavar="N", help="of DATASETS.TEST, with --config-file (default: 8)"
    )


def run(args: argparse.Namespace) -> Iterator[Comparison]:
    """
    Raises:
        InputError: a config that does not work or cannot be compared.
    """
    against = split_against(args.against, DETECTORS if args.config_file else AGAINST)
    precisions = {name: WITH_INT8[name] for name in args.precision}
    on_cpus = [name for name in INT8_ALONE if name in against]
    if "int8" in precisions and (not on_cpus or len(precisions) == 1):
        raise InputError(
            f"--precision int8 needs --config-file, --against {', '.join(INT8_ALONE[:-1])} or {INT8_ALONE[-1]}, and "
            "another precision beside it"
        )
    if on_cpus and args.device != "cpu":
        raise InputError(f"--against {on_cpus[0]}: it computes on the CPU alone; --device cpu would work")
    if on_cpus and "fp16" in precisions:
        raise InputError(f"--against {on_cpus[0]}: it has no fp16; --precision fp32, bf16 or int8 would work")
    if args.num_images < 1:
        raise InputError(f"--num-images {args.num_images}: 1 or more")
    for depth in args.depths or [None]:
        if args.config_file:
            yield run_detectors(args, depth, against, precisions)
        else:
            yield run_backbones(args, depth or 50, against, precisions)


@torch.no_grad()
def run_backbones(
    args: argparse.Namespace, depth: int, against: list[str], precisions: dict[str, torch.dtype]
) -> Comparison:
    """One depth of the backbone with FPN on random numbers."""
    models = build_backbones(backbone_cfg(depth, args.opts), against)
    image = torch.randn(args.batch_size, 3, *args.size, device=args.device)
    contenders = inference_contenders(models, precisions, device=args.device, compiled=args.compile)
    peaks = {name: measure_matmul_flops(dtype, args.device) for name, dtype in precisions.items()}
    return compare(
        f"forward: R-{depth}-FPN backbone, {_describe(args)}, on {args.device}",
        {name: _without_gradients(model, image) for name, model in contenders.items()},
        pairs=args.pairs,
        items=args.batch_size,
        device=args.device,
        with_memory=True,
        flops=2 * count_macs(models["resnet_det"].float(), image),
        peak_flops={name: peaks[name.split()[1]] for name in contenders},
    )


@torch.no_grad()
def run_detectors(
    args: argparse.Namespace, depth: int | None, against: list[str], precisions: dict[str, torch.dtype]
) -> Comparison:
    """A whole detector, image by image."""
    opts = [*args.opts, "MODEL.DEVICE", args.device, "MODEL.WEIGHTS", args.weights, "DATALOADER.NUM_WORKERS", "0"]
    opts += ["RESNET_DET.TEST.SLICE", "0"]  # an image is one image
    opts += ["MODEL.RESNETS.DEPTH", str(depth)] if depth else []
    cfg = setup_cfg(argparse.Namespace(config_file=args.config_file, opts=opts))
    models = build_detectors(cfg, against)
    loader = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    inputs = [entry for batch in islice(loader, args.num_images) for entry in batch][: args.num_images]
    contenders = inference_contenders(
        models,
        precisions,
        device=args.device,
        compiled=args.compile,
        openvino="openvino" in against,
        images=inputs,
    )
    exported = [name for name in EXPORTED if name in against]
    if exported:
        contenders |= exported_contenders(cfg, models["resnet_det"], precisions, exported, inputs)
    detect = {name: _detect_each(model, inputs) for name, model in contenders.items()}
    weights = Path(cfg.MODEL.WEIGHTS).name or "random weights"
    comparison = compare(
        f"forward: {args.config_file}, R-{cfg.MODEL.RESNETS.DEPTH}, images of {cfg.DATASETS.TEST[0]} one by one, "
        f"{weights}, on {args.device}",
        detect,
        pairs=args.pairs,
        items=len(inputs),
        device=args.device,
        compare_outputs=False,  # detections with nearly the same score change places
    )
    return replace(comparison, notes=tuple(_say_how_equal({name: call() for name, call in detect.items()})))


def _say_how_equal(detections: dict[str, list]) -> Iterator[str]:
    (baseline, expected), *others = detections.items()
    total = sum(len(instances) for instances in expected)
    for name, found in others:
        equal = sum(count_equal_detections(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        number = sum(len(instances) for instances in found)
        yield (
            f"{name}: {equal} of {baseline}'s {total} detections are among its {number} (class, IoU over 0.99, score "
            "to 0.001)."
        )
    if all(len(instances) and instances.scores.min() > SATURATED for instances in expected):
        yield "Even the lowest score is 1.000: more detections have it than an image may have, and some are taken."


def _detect_each(model: Callable, inputs: list[dict]) -> Callable[[], list]:
    return _without_gradients(lambda: [model([entry])[0]["instances"].to("cpu") for entry in inputs])


def _without_gradients(function: Callable, *args: Any) -> Callable[[], Any]:
    return lambda: torch.no_grad()(function)(*args)


def _describe(args: argparse.Namespace) -> str:
    height, width = args.size
    return f"{args.batch_size} image{'s'[: args.batch_size > 1]} of {height}x{width}"
