#!/usr/bin/env python
"""Train and evaluate a detector (--help says how). Takes Detectron2's own flags; also runs under torchrun."""

import sys

from resnet_det.engine import build_train_parser, launch, train_or_evaluate
from resnet_det.errors import InputError


def main() -> int:
    args = build_train_parser().parse_args()
    try:
        launch(train_or_evaluate, args)
    except InputError as error:
        print(f"train_net: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
