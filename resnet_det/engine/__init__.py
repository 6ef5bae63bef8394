"""From a command line to a trained and evaluated detector, and to pictures of what it finds."""

from resnet_det.engine.arguments import build_train_parser
from resnet_det.engine.exporting import export_model
from resnet_det.engine.launch import launch
from resnet_det.engine.lazy import build_lazy_parser, load_lazy_config, train_or_evaluate_lazy
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.run import train_or_evaluate
from resnet_det.engine.startup import setup_cfg, setup_model_cfg
from resnet_det.engine.trainer import Trainer
from resnet_det.engine.visualize import build_visualize_parser, setup_visualize_cfg, visualize

__all__ = [
    "Predictor",
    "Trainer",
    "build_lazy_parser",
    "build_train_parser",
    "build_visualize_parser",
    "export_model",
    "launch",
    "load_lazy_config",
    "setup_cfg",
    "setup_model_cfg",
    "setup_visualize_cfg",
    "train_or_evaluate",
    "train_or_evaluate_lazy",
    "visualize",
]
