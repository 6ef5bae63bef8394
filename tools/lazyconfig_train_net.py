#!/usr/bin/env python
"""Train and evaluate a detector from a LazyConfig (configs/lazy). Takes Detectron2's own flags and key=value pairs."""

import sys

from resnet_det.engine import build_lazy_parser, launch, train_or_evaluate_lazy
from resnet_det.errors import InputError


def main() -> int:
    args = build_lazy_parser().parse_args()
    try:
        launch(train_or_evaluate_lazy, args)
    except InputError as error:
        print(f"lazyconfig_train_net: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
