"""Devices and dtypes on a GPU, without one: on torch's fake CUDA tensors, a mismatch of devices or dtypes raises.

What a kernel computes, backward passes, and operations with outputs of unknown size (NMS, sampling) are not seen here.
"""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_backbone
from detectron2.modeling.proposal_generator import build_rpn_head
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from resnet_det.config import FPN_BACKBONE
from resnet_det.engine.failures import StepRecord
from resnet_det.engine.metrics import PERIOD, MetricLog
from resnet_det.engine.moving_average import MovingAverage
from resnet_det.engine.updates import apply_step, clip_and_measure
from resnet_det.modeling import prepare_for_inference

# torch 2.4 aborts the process where a fake tensor asks the driver that is not there; 2.14 does not.
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
    pytest.skip(f"torch {torch.__version__} has no fake CUDA tensors without a driver", allow_module_level=True)

MODE = FakeTensorMode()  # one: torch keeps tensors of it
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Detector(nn.Module):
    """What of a detector has outputs of known sizes: backbone, FPN and the head of the RPN."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = build_backbone(cfg)
        shapes = [self.backbone.output_shape()[name] for name in cfg.MODEL.RPN.IN_FEATURES]
        self.head = build_rpn_head(cfg, shapes)
        self.names = cfg.MODEL.RPN.IN_FEATURES

    def forward(self, images):
        features = self.backbone(images)
        return features, *self.head([features[name] for name in self.names])


@pytest.fixture
def cfg(default_cfg):
    default_cfg.MODEL.BACKBONE.NAME = FPN_BACKBONE
    default_cfg.MODEL.RESNETS.DEPTH = 18
    default_cfg.MODEL.RESNETS.OUT_FEATURES = default_cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    default_cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    default_cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    default_cfg.MODEL.RPN.HEAD_NAME = "StandardRPNHead"
    return default_cfg


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    """New tensors are on the fake GPU; autocast believes in it."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    with MODE, torch.device("cuda"):
        yield


def put_on_fake_gpu_(model):
    """``model``, which was made outside, with tensors of the same shapes on the fake GPU."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake
    return model


def test_fake_tensors_notice_what_would_fail_on_a_gpu():
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2) + torch.ones(2, device="cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("training", [False, True])
def test_backbone_fpn_and_rpn_head(cfg, precision, norm, training):
    cfg.MODEL.RESNETS.NORM = norm
    dtype = PRECISIONS[precision]
    with unset_fake_temporarily(), torch.device("cpu"):
        model = Detector(cfg).train(training)
    put_on_fake_gpu_(model)
    with torch.autocast("cuda", dtype, enabled=dtype is not None), torch.set_grad_enabled(training):
        features, logits, deltas = model(torch.rand(2, 3, 96, 128))
    assert [tuple(x.shape[-2:]) for x in logits] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    for x in (*features.values(), *logits, *deltas):
        assert x.device.type == "cuda"
        assert x.dtype == (dtype or torch.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_prepared_backbones(cfg, precision):
    dtype = PRECISIONS[precision] or torch.float32
    with unset_fake_temporarily(), torch.device("cpu"):
        backbone = prepare_for_inference(build_backbone(cfg).eval(), dtype=dtype)
    put_on_fake_gpu_(backbone)
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 96, 128))
    assert all(x.device.type == "cuda" for x in features.values())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_a_step_reads_nothing_from_the_device(kind, max_norm, monkeypatch):
    """A number of a fake tensor cannot be read: what would make the CPU wait for the GPU raises here."""
    with unset_fake_temporarily(), torch.device("cpu"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        average = MovingAverage(model, 0.9)
    put_on_fake_gpu_(model)
    put_on_fake_gpu_(average.module)
    optimizer = kind(model.parameters(), lr=0.1)
    optimizer._step_supports_amp_scaling = True  # as fused ones, whose kernels are not there
    seen = []
    monkeypatch.setattr(optimizer, "step", lambda: seen.append((optimizer.found_inf, optimizer.grad_scale)))
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    log = MetricLog(torch.device("cuda"))
    for iteration in range(PERIOD - 1):
        loss = model(torch.rand(2, 3, 8, 8)).square().mean()
        for parameter in model.parameters():
            parameter.grad = torch.rand_like(parameter)
        record = StepRecord(iteration, torch.device("cuda"))
        record.add([], {"loss": loss.detach()})
        norm = clip_and_measure(optimizer, scaler, max_norm)
        record.set_flags(norm, signalled=False)
        apply_step(optimizer, scaler, record.is_bad)
        average.update(model)
        log.add(iteration, {**record.mean_losses(), "grad_norm": norm}, 0.0)
        log.flush_if_due(iteration)
    assert len(seen) == PERIOD - 1
    assert all(found.device.type == "cuda" and found.dtype == torch.float32 and scale is None for found, scale in seen)
    assert all(tensor.device.type == "cuda" for tensor in average.module.state_dict().values())
    with pytest.raises(Exception, match="_local_scalar_dense"):
        log.flush()
