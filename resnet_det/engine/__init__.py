"""From a command line to a trained and evaluated detector."""

from resnet_det.engine.launch import launch
from resnet_det.engine.run import train_or_evaluate
from resnet_det.engine.startup import build_train_parser, setup_cfg
from resnet_det.engine.trainer import Trainer

__all__ = ["Trainer", "build_train_parser", "launch", "setup_cfg", "train_or_evaluate"]
