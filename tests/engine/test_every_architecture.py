"""Every meta-architecture of configs/: killed and resumed, it goes on to the bit."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage
from models import CONFIGS, list_configs, make_inputs, read_config

from resnet_det.engine import Trainer
from resnet_det.engine.step import TrainStep


def find_architectures():
    """One config of each kind of detector."""
    kinds = {}
    for path in list_configs():
        model = read_config(path).MODEL
        if model.RESNETS.NUM_GROUPS > 1 or model.RESNETS.DEPTH > 50:
            continue
        kind = (model.META_ARCHITECTURE, model.ROI_HEADS.NAME, model.BACKBONE.NAME)
        kinds.setdefault((*kind, model.MASK_ON, model.KEYPOINT_ON), path)
    return [str(path.relative_to(CONFIGS)) for path in kinds.values()]


def make_step(cfg, numbers):
    """A new model and all that goes with it, as a new process has it; ``numbers`` are of the batches to come."""
    torch.manual_seed(3)
    model = Trainer.build_model(cfg)
    batches = ([{**entry, "image_id": number} for entry in make_inputs(cfg, ((64, 96), (80, 64)), number)]
               for number in numbers)  # fmt: skip
    optimizer = Trainer.build_optimizer(cfg, model)
    return TrainStep(model, lambda _: batches, optimizer, accumulate=2, clip_grad_norm=1.0, ema_decay=0.9, seed=5)


def train(step, iterations):
    with EventStorage(iterations[0]) as storage:
        for step.iter in iterations:
            storage.iter = step.iter
            step.run_step()
        step.prepare_to_save()


def test_there_are_all_of_them():
    kinds = {read_config(CONFIGS / name).MODEL.META_ARCHITECTURE for name in find_architectures()}
    assert kinds == {"GeneralizedRCNN", "RetinaNet", "PanopticFPN"}
    heads = {read_config(CONFIGS / name).MODEL.ROI_HEADS.NAME for name in find_architectures()}
    assert heads == {"Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * ("_C4_" in name or "mask_rcnn_R_50_DC5" in name))
        for name in find_architectures()
    ],
)
def test_a_resumed_run_is_the_run_that_was_interrupted(name, tmp_path):
    cfg = read_config(CONFIGS / name)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16, 64
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.SOLVER.BASE_LR = 50, 1e-3
    cfg.MODEL.RESNET_DET.STAGE_BLOCKS, cfg.MODEL.RESNET_DET.BLOCK = [1, 1, 1, 1], "bottleneck"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 128
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS[:1]
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = cfg.MODEL.RETINANET.NUM_CONVS = 1
    whole = make_step(cfg, range(6))
    train(whole, range(3))
    first = make_step(cfg, range(2))
    train(first, range(1))
    torch.save({"model": first.model.state_dict(), "step": first.state_dict()}, tmp_path / "last.pth")
    del first
    resumed = make_step(cfg, range(2, 6))
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    resumed.model.load_state_dict(state["model"])
    resumed.load_state_dict(state["step"])
    train(resumed, range(1, 3))
    for ours, theirs in ((resumed.model, whole.model), (resumed.ema.module, whole.ema.module)):
        tensors = theirs.state_dict()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in ours.state_dict().items())
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours["numbers"] == theirs["numbers"]
    for key, entry in ours["optimizer"]["state"].items():
        assert all(torch.equal(value, theirs["optimizer"]["state"][key][part]) for part, value in entry.items())
