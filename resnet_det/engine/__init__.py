"""From a command line to a trained and evaluated detector.

What is not needed for that has sub-modules of its own, which are imported where they are used: ``predictor``,
``visualize`` and ``exporting`` would bring a second of drawing libraries to each process that trains.
"""

from resnet_det.engine.arguments import build_train_parser
from resnet_det.engine.launch import launch
from resnet_det.engine.lazy import build_lazy_parser, load_lazy_config, train_or_evaluate_lazy
from resnet_det.engine.run import train_or_evaluate
from resnet_det.engine.startup import setup_cfg, setup_model_cfg
from resnet_det.engine.trainer import Trainer

__all__ = [
    "Trainer",
    "build_lazy_parser",
    "build_train_parser",
    "launch",
    "load_lazy_config",
    "setup_cfg",
    "setup_model_cfg",
    "train_or_evaluate",
    "train_or_evaluate_lazy",
]
