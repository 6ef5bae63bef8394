"""Predictions on any number of images: what tools/predict.py does."""

from resnet_det.engine.predict.arguments import build_predict_parser, setup_predict_cfg
from resnet_det.engine.predict.run import Counts, Summary, predict

__all__ = ["Counts", "Summary", "build_predict_parser", "predict", "setup_predict_cfg"]
