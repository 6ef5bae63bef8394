#!/usr/bin/env python
"""Write a trained detector as an ONNX, OpenVINO or torch.export file (--help says how)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from resnet_det.deploy.export import FILES
from resnet_det.engine import setup_model_cfg
from resnet_det.engine.export_check import ExportError
from resnet_det.engine.exporting import export_model
from resnet_det.errors import InputError

DESCRIPTION = """\
Write a trained detector as files that run without Detectron2: Faster, Mask, Keypoint and Cascade R-CNN and RetinaNet.
Resized images of any number and size go in; normalisation, proposals and non-maximum suppression are inside; boxes,
scores, classes, their count, and masks or keypoints come out. Each file is run on images and compared with the model
before it is kept. resnet_det.deploy.Detector runs them without Detectron2, and those of ONNX and OpenVINO without
torch, too (docs/export.md).
"""
EPILOG = """\
Examples:
  %(prog)s --config-file output/demo/config.yaml --format onnx openvino --output exported
           --opts MODEL.WEIGHTS output/demo/model_final.pth
  %(prog)s --config-file output/demo/config.yaml --format openvino --precision int8 --output exported-int8
           --calibration resnet_det_demo_train --opts MODEL.WEIGHTS output/demo/model_final.pth
Exit status 1 if a file does not compute what the model computes, 2 for a wrong input.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="config, such as config.yaml in OUTPUT_DIR"
    )
    parser.add_argument("--format", nargs="+", choices=tuple(FILES), default=["onnx"], help="default: onnx")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="float32",
        help="of what is computed; float16: of the weights in the file alone (default: float32)",
    )
    parser.add_argument(
        "--calibration",
        default="",
        metavar="SET",
        help="name of the data set whose images int8 takes its ranges from, and on which files are compared with the "
        "model (default: the first that is here, of DATASETS.TRAIN for int8, else of DATASETS.TEST)",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="where model.onnx, model.xml, model.pt2 go"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; the last flag")
    args = parser.parse_args()
    setup_logger(name="resnet_det")
    try:
        cfg = setup_model_cfg(args.config_file, args.opts)
        formats = list(dict.fromkeys(args.format))
        compared = export_model(
            cfg, args.output, formats=formats, precision=args.precision, calibration=args.calibration
        )
    except InputError as error:
        print(f"export_model: {error}", file=sys.stderr)
        return 2
    except ExportError as error:
        print(f"export_model: {error}", file=sys.stderr)
        return 1
    for file, differences in compared.items():
        print(f"{file} ({args.precision}): {differences}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
