"""Small runs that tests compare."""

from __future__ import annotations

from pathlib import Path

import torch

EVERYTHING_ON = ["RESNET_DET.TRAIN.ACCUMULATE", "2", "RESNET_DET.TRAIN.EMA_DECAY", "0.9"]
EVERYTHING_ON += ["RESNET_DET.TRAIN.CLIP_GRAD_NORM", "5.0", "RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP"]

# Of all anchors and proposals, so that losses do not depend on which images make a batch.
NO_SAMPLING = ["MODEL.MASK_ON", "False", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "100000", "MODEL.RESNETS.NORM", "GN"]
NO_SAMPLING += ["MODEL.RPN.POST_NMS_TOPK_TRAIN", "20", "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "300"]
NO_SAMPLING += ["MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", "False", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "1000"]
NO_SAMPLING += ["MODEL.ROI_HEADS.POSITIVE_FRACTION", "1.0", "MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.5]"]
NO_SAMPLING += ["MODEL.ROI_HEADS.IOU_LABELS", "[0,1]", "MODEL.RPN.NMS_THRESH", "0.95"]
NO_SAMPLING += ["MODEL.RPN.POSITIVE_FRACTION", "1.0", "DATALOADER.ASPECT_RATIO_GROUPING", "False"]


def square_images():
    """All images of one size: padding changes what a convolution sees at the border."""
    return ["RESNET_DET.DATA.LSJ.ENABLED", True, "RESNET_DET.DATA.LSJ.SIZE", 64, "RESNET_DET.DATA.LSJ.MIN_SCALE", 0.9]


def final_state(folder):
    return torch.load(Path(folder, "model_final.pth"), weights_only=True)


def assert_same_run(one, other):
    assert one["iteration"] == other["iteration"]
    steps = [run["trainer"]["_trainer"] for run in (one, other)]
    assert steps[0]["numbers"] == steps[1]["numbers"]
    pairs = [(one["model"], other["model"])]
    if "ema" in steps[0]:
        pairs.append(tuple(step["ema"]["module"] for step in steps))
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name
    optimizers = [step["optimizer"]["state"] for step in steps]
    for index, state in optimizers[0].items():
        assert all(
            torch.equal(torch.as_tensor(state[key]), torch.as_tensor(optimizers[1][index][key])) for key in state
        )
