#!/usr/bin/env python
"""Train and evaluate an image classifier, to start detectors from (--help says how). Also runs under torchrun."""

import sys

from resnet_det.classification import build_classifier_parser, train_or_evaluate_classifier
from resnet_det.engine import launch
from resnet_det.errors import InputError


def main() -> int:
    args = build_classifier_parser().parse_args()
    try:
        launch(train_or_evaluate_classifier, args)
    except InputError as error:
        print(f"train_classifier: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
