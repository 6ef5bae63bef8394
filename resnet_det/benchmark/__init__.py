"""How fast this package is, beside others. Each module of ``SUBCOMMANDS`` is one of tools/benchmark.py."""

from types import ModuleType

from resnet_det.benchmark import data, draw, evaluate, forward, train
from resnet_det.benchmark.arguments import add_common_arguments, check_common_arguments
from resnet_det.benchmark.compare import Comparison, Result, compare
from resnet_det.benchmark.machine import describe_machine
from resnet_det.benchmark.report import format_comparison, write_comparisons

SUBCOMMANDS: dict[str, ModuleType] = {
    "forward": forward,
    "train": train,
    "data": data,
    "evaluate": evaluate,
    "draw": draw,
}

__all__ = [
    "SUBCOMMANDS",
    "Comparison",
    "Result",
    "add_common_arguments",
    "check_common_arguments",
    "compare",
    "describe_machine",
    "format_comparison",
    "write_comparisons",
]
