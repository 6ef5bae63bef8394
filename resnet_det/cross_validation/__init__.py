"""Cross-validation: as many detectors as folds, each tested on the images that it was not trained on."""

from resnet_det.cross_validation.arguments import build_parser
from resnet_det.cross_validation.run import cross_validate
from resnet_det.cross_validation.training import TrainingStoppedError

__all__ = ["TrainingStoppedError", "build_parser", "cross_validate"]
