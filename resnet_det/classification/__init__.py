"""Image classification: from images by class to a backbone that detectors start from.

In Python::

    cfg = make_classification_cfg("configs/ImageNet-Classification/R_20_CIFAR10.yaml", ["OUTPUT_DIR", "out"])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("cifar/train",), ("cifar/test",)
    results = train_classifier(cfg)  # {"classification": {"top1_error": ..., "top5_error": ..., "loss": ...}}
"""

from resnet_det.classification.classifier import Classifier, build_classifier
from resnet_det.classification.evaluation import evaluate_classifier
from resnet_det.classification.image_sets import ImageSet, load_image_set
from resnet_det.classification.loaders import build_test_loader, build_train_loader
from resnet_det.classification.run import load_images, make_classification_cfg, train_classifier
from resnet_det.classification.tool import build_classifier_parser, train_or_evaluate_classifier

__all__ = [
    "Classifier",
    "ImageSet",
    "build_classifier",
    "build_classifier_parser",
    "build_test_loader",
    "build_train_loader",
    "evaluate_classifier",
    "load_image_set",
    "load_images",
    "make_classification_cfg",
    "train_classifier",
    "train_or_evaluate_classifier",
]
