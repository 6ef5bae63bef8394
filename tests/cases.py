"""Runs small inputs, each in the shape of what users report, through the tools."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.getenv("RESNET_DET_SHARED_DATA", ROOT.parent / "shared" / "data"))
CASES = Path(os.getenv("RESNET_DET_SHARED_CASES", SHARED.parent / "cases"))
CONFIG = ROOT / "configs" / "demo" / "mask_rcnn_R_18_FPN.yaml"
TINY = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TRAIN", "96"]
TINY += ["INPUT.MAX_SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"]
TINY += ["SOLVER.WARMUP_ITERS", "0", "TEST.EVAL_PERIOD", "0", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"]
TINY += ["MODEL.RESNETS.DEPTH", "14", "RESNET_DET.TEST.REPORT", "True", "SEED", "1", "TEST.EXPECTED_RESULTS", "[]"]
KEYPOINTS = ["MODEL.MASK_ON", "False", "MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(32,)"]


class Run:
    """A tool's exit status, and what it printed and logged."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.text


def run(tool: str, *args: object) -> Run:
    """Run a tool in this process."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    before = sys.argv, os.getcwd()
    loggers = [logging.getLogger(name) for name in ("resnet_det", "detectron2")]
    sys.argv = [tool, *map(str, args)]
    os.chdir(ROOT)
    for logger in loggers:
        logger.addHandler(handler)
    status = 0
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except Exception:
        status = 70
        text.write(traceback.format_exc())
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        for logger in loggers:
            logger.removeHandler(handler)
            logger.handlers.clear()
    return Run(status, text.getvalue())


def check(folder: Path, *flags: object) -> Run:
    return run("check_dataset.py", "--annotations", folder / "ann.json", "--images", folder / "images", *flags)


def train(folder: Path, out: Path, *opts: object, train_set: tuple | None = None, test_set: tuple | None = None) -> Run:
    """Two iterations and an evaluation."""
    first = train_set or (folder / "ann.json", folder / "images")
    second = test_set or first
    opts = [*(KEYPOINTS if folder.name.startswith("k") else []), *TINY, *opts]
    data = ["--train-data", *first, "--test-data", *second]
    return run("train_net.py", "--config-file", CONFIG, *data, *opts, "OUTPUT_DIR", out)


def evaluate(folder: Path, results: Path, *flags: object) -> Run:
    return run("evaluate.py", "--annotations", folder / "ann.json", "--results", results, *flags)


def draw(folder: Path, results: Path, out: Path) -> Run:
    data = ["--annotations", folder / "ann.json", "--images", folder / "images"]
    return run("visualize.py", "--results", results, *data, "--confidence-threshold", 0, "--output", out)
