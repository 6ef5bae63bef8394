"""Which of several detectors to take: what each finds, what it costs, and whether a dearer one is worth it."""

from resnet_det.tradeoff.arguments import build_parser, check_arguments
from resnet_det.tradeoff.run import Measuring, compare_configs, compare_runs
from resnet_det.tradeoff.text import format_tradeoff

__all__ = ["Measuring", "build_parser", "check_arguments", "compare_configs", "compare_runs", "format_tradeoff"]
