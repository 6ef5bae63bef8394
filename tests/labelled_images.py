"""Small images by class, and a classifier of a few numbers."""

from __future__ import annotations

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
TINY = ["MODEL.DEVICE", "cpu", "SEED", 3, "MODEL.RESNET_DET.STAGE_BLOCKS", [1, 1], "MODEL.RESNET_DET.BLOCK", "basic"]
TINY += ["MODEL.RESNET_DET.STEM", "3x3", "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8]
TINY += ["RESNET_DET.TRAIN.EPOCHS", 0, "SOLVER.MAX_ITER", 6, "SOLVER.WARMUP_ITERS", 2, "SOLVER.IMS_PER_BATCH", 4]
TINY += ["SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 3, "DATALOADER.NUM_WORKERS", 0]
SMALL_SQUARES = ["RESNET_DET.CLASSIFICATION.SIZE_TRAIN", 16, "RESNET_DET.CLASSIFICATION.RESIZE_TEST", 16]
SMALL_SQUARES += ["RESNET_DET.CLASSIFICATION.SIZE_TEST", 16, "RESNET_DET.CLASSIFICATION.CROP", "padded"]


def write_images(root, classes=CLASSES, per_class=3, size=(16, 16), seed=0):
    """Images of noise around a colour for each class, as PNG files: root/class/0.png."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for image in range(per_class):
            pixels = generator.integers(0, 120, (*size, 3)) + 20 * number
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{image}.png")
    return root
