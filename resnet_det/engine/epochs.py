"""The length of training in epochs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def set_length_in_epochs_(cfg: CfgNode, count_images: Callable[[], int]) -> None:
    """Let SOLVER.MAX_ITER be RESNET_DET.TRAIN.EPOCHS times the training images, if there are any epochs.

    Steps of the learning rate, the warm-up, and the periods of checkpoints and evaluations keep their share of the
    whole; a period of 0 stays, and none gets shorter than one iteration.

    Args:
        count_images: of DATASETS.TRAIN, as they are trained on.
    """
    epochs = cfg.RESNET_DET.TRAIN.EPOCHS
    if not epochs:
        return
    images = count_images()
    per_step = cfg.SOLVER.IMS_PER_BATCH * cfg.RESNET_DET.TRAIN.ACCUMULATE
    before, after = cfg.SOLVER.MAX_ITER, max(1, math.ceil(epochs * images / per_step))
    scale = after / before

    def scaled(iterations: int) -> int:
        return max(1, round(iterations * scale)) if iterations > 0 else iterations

    cfg.SOLVER.MAX_ITER = after
    steps = dict.fromkeys(scaled(step) for step in cfg.SOLVER.STEPS)
    cfg.SOLVER.STEPS = tuple(step for step in steps if step < after)  # in a short run they may meet its end
    cfg.SOLVER.WARMUP_ITERS = scaled(cfg.SOLVER.WARMUP_ITERS)
    cfg.SOLVER.CHECKPOINT_PERIOD = scaled(cfg.SOLVER.CHECKPOINT_PERIOD)
    cfg.TEST.EVAL_PERIOD = scaled(cfg.TEST.EVAL_PERIOD)
    cfg.RESNET_DET.TRAIN.EPOCHS = 0  # the config that is kept says iterations
    logger.info(
        "%d epochs, %d images, %d a step: MAX_ITER %d, STEPS %s, WARMUP_ITERS %d, checkpoints each %d, evaluation %d",
        epochs,
        images,
        per_step,
        after,
        cfg.SOLVER.STEPS,
        cfg.SOLVER.WARMUP_ITERS,
        cfg.SOLVER.CHECKPOINT_PERIOD,
        cfg.TEST.EVAL_PERIOD,
    )
