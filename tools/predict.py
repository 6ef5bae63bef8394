#!/usr/bin/env python
"""Predict on any number of images (--help says how)."""

import os
import signal
import sys

from detectron2.utils.logger import setup_logger

from resnet_det.engine.predict import build_predict_parser, predict, setup_predict_cfg
from resnet_det.errors import InputError


def main() -> int:
    args = build_predict_parser().parse_args()
    setup_logger(name="resnet_det", distributed_rank=int(os.environ.get("RANK", 0)))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: ends at once, and what is finished stays
    try:
        summary = predict(args, setup_predict_cfg(args))
    except InputError as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    if summary is None:  # the first process tells it
        return 0
    total, speed = summary.all, summary.new.images / summary.seconds if summary.seconds else 0.0
    print(
        f"{total.images:,} images, {total.detections:,} detections, {total.bad:,} that could not be read; "
        f"{summary.new.images:,} images in {summary.seconds:.1f} s: {speed:.1f} images/s. Results are in {args.output}"
    )
    if total.others:
        print(f"{total.others:,} members of tar files are no images, by their suffix")
    if summary.bad:
        first = summary.bad[0]
        name = ": ".join(filter(None, (first["shard"], first["file_name"])))
        print(f"Not read, and listed in bad_images.jsonl: such as {name}: {first['error']}", file=sys.stderr)
    return 1 if summary.bad else 0


if __name__ == "__main__":
    sys.exit(main())
