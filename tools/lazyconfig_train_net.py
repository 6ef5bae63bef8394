#!/usr/bin/env python
"""Train and evaluate a detector from a LazyConfig (configs/lazy). Takes Detectron2's own flags and key=value pairs."""

import sys

from detectron2.engine import default_argument_parser

from resnet_det.engine import launch, train_or_evaluate_lazy
from resnet_det.errors import InputError

EPILOG = """
Examples:
  COCO on 8 GPUs:     {prog} --config-file configs/lazy/COCO-Detection/faster_rcnn_R_50_FPN_1x.py --num-gpus 8
  another depth:      {prog} --config-file ... model.backbone.bottom_up.depth=101
  evaluation alone:   {prog} --config-file ... --eval-only train.init_checkpoint=output/model_final.pth
"""


def main() -> int:
    args = default_argument_parser(epilog=EPILOG.format(prog=sys.argv[0])).parse_args()
    try:
        launch(train_or_evaluate_lazy, args)
    except InputError as error:
        print(f"lazyconfig_train_net: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
