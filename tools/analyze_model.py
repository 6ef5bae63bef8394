#!/usr/bin/env python3
"""Show what a detector costs, part by part: parameters, multiply-adds, activations, time and tensors.

The weights are random; norms are calibrated on the random image, so that the heads get as much to do as in training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from detectron2.modeling import build_model

from resnet_det.analysis import analyze_model, calibrate_norms_, format_costs, plot_costs, write_costs
from resnet_det.depths import DEPTHS
from resnet_det.engine import setup_model_cfg
from resnet_det.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: %(prog)s --config-file configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml "
        "--compare-depths 18 34 50 101 152 --output output/cost",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the detector")
    parser.add_argument(
        "--compare-depths",
        type=int,
        nargs="+",
        choices=DEPTHS,
        metavar="DEPTH",
        help="the same detector at these depths",
    )
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="in pixels (default: 800 1344)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs to take the median time of; 0: none (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where costs.json and costs.png go")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs; the last flag")
    args = parser.parse_args()
    costs = {}
    try:
        for depth in args.compare_depths or [None]:
            depth_opts = [] if depth is None else ["MODEL.RESNETS.DEPTH", str(depth)]
            cfg = setup_model_cfg(args.config_file, [*args.opts, *depth_opts])
            torch.manual_seed(0)
            model = build_model(cfg)
            name = f"R-{depth}" if depth else Path(args.config_file).stem
            image = torch.rand(len(cfg.MODEL.PIXEL_MEAN), *args.input_size) * 255
            calibrate_norms_(model, image)
            costs[name] = analyze_model(model, image, repeats=args.repeats)
            print(f"{name}, one image of {args.input_size[0]}x{args.input_size[1]} on {cfg.MODEL.DEVICE}")
            print(f"{format_costs(costs[name])}\n", flush=True)
    except InputError as error:
        print(f"analyze_model: {error}", file=sys.stderr)
        return 2
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        write_costs(costs, args.output / "costs.json")
        plot_costs(costs, args.output / "costs.png")
        print(f"Written: {args.output / 'costs.json'}, {args.output / 'costs.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
