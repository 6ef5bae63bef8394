"""The flags that all benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from resnet_det.benchmark.compare import MIN_PAIRS
from resnet_det.errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WITH_INT8 = PRECISIONS | {"int8": torch.int8}  # which only OpenVINO has


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """``--pairs``, ``--device``, ``--threads``, ``--json``."""
    add_measuring_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything that was measured to this file")


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """``--pairs``, ``--device``, ``--threads``: how to measure."""
    parser.add_argument(
        "--pairs", type=int, default=9, metavar="N", help=f"rounds to measure, at least {MIN_PAIRS} (default: 9)"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default: one for each core)")


def add_model_arguments(
    parser: argparse.ArgumentParser,
    *,
    against: tuple[str, ...],
    detectors_against: tuple[str, ...],
    precisions: dict[str, torch.dtype] = PRECISIONS,
) -> None:
    """``--config-file``, ``--depths``, ``--precision``, ``--against``, ``--opts``: what is measured of models."""
    parser.add_argument("--config-file", metavar="FILE", help="config of a whole detector (default: backbone with FPN)")
    parser.add_argument("--depths", type=int, nargs="+", metavar="DEPTH", help="of the ResNet, one table for each")
    parser.add_argument(
        "--precision", nargs="+", default=["fp32"], choices=precisions, help=f"one or more of {', '.join(precisions)}"
    )
    parser.add_argument(
        "--against",
        default="detectron2",
        metavar="A,B",
        help=f"one or more of {','.join(against)}, with commas; of {','.join(detectors_against)} with --config-file",
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; the last flag")


def check_common_arguments(args: argparse.Namespace) -> None:
    """
    Raises:
        InputError: too few pairs, no CUDA, or no such number of threads.
    """
    if args.pairs < MIN_PAIRS:
        raise InputError(f"--pairs {args.pairs}: at least {MIN_PAIRS}, as fewer say little")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no GPU is there that torch can use; --device cpu would work")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: 1 or more")


def split_against(names: str, choices: tuple[str, ...]) -> list[str]:
    """The contenders named in ``--against A,B``.

    Raises:
        InputError: one is not among ``choices``.
    """
    split = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in split if name not in choices]
    if unknown or not split:
        raise InputError(f"--against {names}: choose from {', '.join(choices)}, with commas between")
    return list(dict.fromkeys(split))
