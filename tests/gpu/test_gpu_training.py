"""Training on a GPU: steps as on the CPU, no waiting in between, whole runs of each meta-architecture, several GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from models import QUICK, make_inputs, with_our_backbone, zoo_cfg
from torch import nn
from training import assert_same_run, final_state

from resnet_det.engine import Trainer, build_train_parser, setup_cfg
from resnet_det.engine.step import TrainStep
from resnet_det.modeling import prepare_for_inference

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"
ARCHITECTURES = {
    "Faster R-CNN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "Mask R-CNN": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "RetinaNet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "Cascade R-CNN": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "Keypoint R-CNN": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "Panoptic FPN": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 3))

    def forward(self, batch):
        device = self.layers[0].weight.device
        x = self.layers(torch.stack([sample["image"] for sample in batch]).to(device, non_blocking=True))
        return {"loss": x.square().mean(), "loss_other": x.abs().mean()}


def train_small(device, kind, dtype, clipping, *, iterations=5, batches=None):
    torch.manual_seed(0)
    model = Small().to(device)
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clipping == "each"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    optimizer = maybe_add_gradient_clipping(cfg, kind(model.parameters(), lr=0.01, fused=device == "cuda"))
    batches = batches or [[{"image": torch.rand(3, 16, 16)} for _ in range(2)] for _ in range(iterations)]
    step = TrainStep(
        model,
        lambda _: iter(batches),
        optimizer,
        amp_dtype=dtype,
        clip_grad_norm=0.01 * (clipping == "global"),
        ema_decay=0.9,
    )
    if dtype is torch.float16:  # the usual first scale, 65536, lets the scaler skip the first step
        step.grad_scaler = torch.amp.GradScaler(device, init_scale=256.0)
    with EventStorage() as storage:
        for step.iter in range(iterations):
            storage.iter = step.iter
            step.run_step()
        step.settle()
    return step


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("clipping", ["", "each", "global"])
def test_a_step_moves_weights_as_the_cpus_float32(kind, dtype, clipping):
    moved = []
    for device, precision in (("cpu", None), ("cuda", dtype)):
        step = train_small(device, kind, precision, clipping)
        torch.manual_seed(0)
        moved.append(
            torch.cat(
                [
                    (p.detach().cpu() - q).flatten()
                    for p, q in zip(step.model.parameters(), Small().parameters(), strict=True)
                ]
            )
        )
    assert (moved[1] - moved[0]).norm() <= (0.02 if dtype is None else 0.1) * moved[0].norm()


def test_an_ordinary_iteration_waits_for_nothing():
    batches = [[{"image": torch.rand(3, 16, 16).pin_memory()}] for _ in range(12)]
    train_small("cuda", torch.optim.SGD, torch.bfloat16, "", iterations=2, batches=batches)  # kernels are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.manual_seed(0)
        model = Small()
        torch.cuda.set_sync_debug_mode("default")
        step = TrainStep(
            model.cuda(), lambda _: iter(batches), torch.optim.SGD(model.parameters(), lr=0.01, fused=True),
            amp_dtype=torch.bfloat16, ema_decay=0.9, clip_grad_norm=1.0,
        )  # fmt: skip
        forward = step._forward_and_backward

        def with_its_own_copies(batch, **options):
            torch.cuda.set_sync_debug_mode("default")  # what a model does is not ours
            try:
                return forward(batch, **options)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        step._forward_and_backward = with_its_own_copies
        with EventStorage() as storage:
            for step.iter in range(10):
                storage.iter = step.iter
                step.run_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_each_meta_architecture_trains(name, dtype):
    cfg = with_our_backbone(zoo_cfg(ARCHITECTURES[name], MODEL__DEVICE="cuda", MODEL__BACKBONE__FREEZE_AT=0))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM = 18, 64, "BN"
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    batch = make_inputs(cfg, ((256, 320), (320, 256)))
    step = TrainStep(
        model, lambda _: iter([batch] * 20), torch.optim.AdamW(model.parameters(), 1e-4, fused=True), amp_dtype=dtype
    )
    with EventStorage() as storage:
        for step.iter in range(20):
            storage.iter = step.iter
            step.run_step()
        step.settle()
        losses = [value for value, _ in storage.history("total_loss").values()]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        outputs = prepare_for_inference(model.eval(), dtype=dtype or torch.float32)(batch)
    assert outputs


def test_a_resumed_run_is_the_run_that_was_interrupted(small_data, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
    opts = ["MODEL.DEVICE", "cuda", "SOLVER.IMS_PER_BATCH", "2", *QUICK, "INPUT.MIN_SIZE_TRAIN", "(96,)", "SEED", "3"]
    opts += ["INPUT.MIN_SIZE_TEST", "96", "SOLVER.MAX_ITER", "4", "RESNET_DET.TRAIN.EMA_DECAY", "0.9"]
    opts += ["RESNET_DET.TRAIN.DETERMINISTIC", "True"]

    def make(out):
        args = ["--resume", "--config-file", DEMO, *data, *opts, "OUTPUT_DIR", str(tmp_path / out)]
        torch.manual_seed(0)  # of the first weights
        trainer = Trainer(setup_cfg(build_train_parser().parse_args(args)))
        trainer.resume_or_load(resume=True)
        return trainer

    try:
        make("whole").train()
        first = make("parts")
        first.after_step = lambda: (Trainer.after_step(first), first.iter == 1 and first.stop("test", interrupted=True))
        first.cfg.defrost()
        first.checkpoint_hook.period = 1
        first.train()
        make("parts").train()
        assert_same_run(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    finally:
        torch.use_deterministic_algorithms(False)


def test_all_gpus_train_together(small_data, tmp_path, request):
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"{count} GPU: NCCL takes two or more")
    opts = ["SOLVER.IMS_PER_BATCH", str(count), "SOLVER.MAX_ITER", "4", *QUICK, "OUTPUT_DIR", str(tmp_path / "out")]
    data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["tools/train_net.py", "--config-file", DEMO, *data, *opts]
    run = subprocess.run(
        command, cwd=request.config.rootpath, env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox", "segm"}


def test_memory_and_time_beside_detectron2s_trainer(request):
    command = [sys.executable, "tools/benchmark.py", "train", "--device", "cuda"]
    run = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, timeout=900)
    print(run.stdout)
    assert run.returncode == 0, run.stderr[-3000:]
