"""Nets for tiny images (arXiv 1512.03385, section 4.2), and nets of any number of stages, alone and in detectors."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from models import check_trains_and_detects, make_inputs, randomise_norms_

from resnet_det import make_resnet, prepare_for_inference
from resnet_det.config import check_cfg
from resnet_det.modeling import make_fpn

TINY = {"block": "basic", "stem": "3x3", "stem_out_channels": 16, "res2_out_channels": 16}
# Of the paper's table 6: depth 6n + 2, and parameters.
PARAMETERS = {20: "0.27M", 32: "0.46M", 44: "0.66M", 56: "0.85M", 110: "1.7M", 1202: "19.4M"}


def make_cifar_resnet(depth, **fields):
    return make_resnet(**{**TINY, "stage_blocks": ((depth - 2) // 6,) * 3, "shortcut": "pad", **fields})


@pytest.mark.parametrize("shortcut", ["pad", "none"])
@pytest.mark.parametrize(
    "depth", [pytest.param(depth, marks=[pytest.mark.long] * (depth > 110)) for depth in PARAMETERS]
)
def test_parameters_of_the_paper(depth, shortcut):
    with torch.device("meta"):
        net = make_cifar_resnet(depth, shortcut=shortcut, num_classes=10)
    expected = PARAMETERS[depth]
    decimals = len(expected.partition(".")[2]) - 1
    assert f"{sum(p.numel() for p in net.parameters()) / 1e6:.{decimals}f}M" == expected
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


def test_resnet_20_is_the_papers():
    """Against the net written down layer by layer."""
    net = make_cifar_resnet(20, num_classes=10).eval()
    randomise_norms_(net)
    state = net.state_dict()

    def conv(x, name, stride=1):
        norm = [state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(F.conv2d(x, state[f"{name}.weight"], None, stride, 1), *norm)

    image = torch.randn(2, 3, 32, 32)
    x = conv(image, "stem.conv1").relu()
    for stage, channels in (("res2", 16), ("res3", 32), ("res4", 64)):
        for number in range(3):
            stride = 2 if number == 0 and stage != "res2" else 1
            short = x
            if stride == 2:
                zeros = torch.zeros(2, channels // 4, *x[:, :, ::2, ::2].shape[2:])
                short = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            out = conv(x, f"{stage}.{number}.conv1", stride).relu()
            x = (conv(out, f"{stage}.{number}.conv2") + short).relu()
    assert x.shape == (2, 64, 8, 8)
    logits = x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]
    torch.testing.assert_close(net(image)["linear"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("fields", [{}, {"preact": True, "stem": "7x7"}, {"shortcut": "projection", "stem": "deep"}])
def test_any_number_of_stages(count, fields):
    checkpointed = (True,) * count
    arguments = {**TINY, "stage_blocks": (2,) * count, "shortcut": "pad", "checkpoint_stages": checkpointed, **fields}
    net = make_resnet(**arguments)
    shapes = net.output_shape()
    first = 1 if net.spec.stem == "3x3" else 4
    assert {name: shape.stride for name, shape in shapes.items()} == {
        f"res{number + 2}": first * 2**number for number in range(count)
    }
    image = torch.randn(2, 3, 67, 50)
    outputs = net(image)
    for name, output in outputs.items():
        stride = shapes[name].stride
        assert output.shape == (2, shapes[name].channels, -(-67 // stride), -(-50 // stride)), name
    sum(output.square().mean() for output in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_net_with_pad_shortcuts_can_be_prepared(kind):
    net = make_cifar_resnet(20).eval()
    randomise_norms_(net)
    image = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        expected, found = net(image), prepare_for_inference(net, dtype=kind)(image)
    for name, output in expected.items():
        tolerance = 1e-4 if kind == torch.float32 else 0.1
        assert (found[name].float() - output).abs().max() < tolerance * output.abs().max(), name


@pytest.mark.parametrize("top_block", ["max_pool", "p6p7"])
def test_fpn_over_three_stages_with_strides_from_1(top_block):
    fpn = make_fpn(make_cifar_resnet(20), out_channels=8, top_block=top_block)
    strides = {"p2": 1, "p3": 2, "p4": 4, "p5": 8, **({"p6": 16} if top_block == "p6p7" else {})}
    assert {name: shape.stride for name, shape in fpn.output_shape().items()} == strides
    outputs = fpn(torch.randn(1, 3, 32, 48))
    assert {name: tuple(output.shape[2:]) for name, output in outputs.items()} == {
        name: (32 // stride, 48 // stride) for name, stride in strides.items()
    }


def detector_cfg(cfg, config, levels):
    cfg.merge_from_file(config)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.FPN.OUT_CHANNELS = "cpu", "", 16
    cfg.MODEL.RESNET_DET.STAGE_BLOCKS, cfg.MODEL.RESNET_DET.BLOCK = [1] * levels, "basic"
    cfg.MODEL.RESNET_DET.STEM, cfg.MODEL.RESNET_DET.SHORTCUT = "3x3", "pad"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 16, 20
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", 0
    return cfg


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
def test_a_detector_over_fewer_stages(default_cfg, kind):
    cfg = detector_cfg(default_cfg, f"configs/COCO-Detection/{kind}_R_18_FPN_1x.yaml", 3)
    first = "res3" if kind == "retinanet" else "res2"
    stages = [name for name in ("res2", "res3", "res4") if name >= first]
    problems = check_cfg(cfg)
    assert any("out_features has 'res5'; choose from stem, res2, res3, res4" in problem for problem in problems)
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = stages
    assert any("'p6'" in problem or "'p7'" in problem for problem in check_cfg(cfg))
    if kind == "retinanet":
        cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64]]
    else:
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64]]
    assert check_cfg(cfg) == []
    model = build_model(cfg)
    inputs = make_inputs(cfg, ((40, 56),))
    inputs[0]["instances"].gt_boxes.clip((40, 56))
    check_trains_and_detects(model, inputs)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.RES5_DILATION", 2], "RES5_DILATION 2, and there are 3 stages, from res2 on"),
        (["MODEL.BACKBONE.FREEZE_AT", 5], "freeze_at is 5; choose 0 .nothing. to 4"),
        (
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]],
            "deform_stages is .*, and there are 3 st",
        ),
        (["MODEL.RESNET_DET.CHECKPOINT_STAGES", [True]], "checkpoint_stages is .True., and there are 3 stages"),
        (["MODEL.RESNETS.STEM_OUT_CHANNELS", 64], "shortcut pad .* res2_out_channels is 16, stem_out_channels 64"),
    ],
)
def test_keys_that_do_not_fit_three_stages(default_cfg, opts, message):
    cfg = detector_cfg(default_cfg, "configs/COCO-Detection/faster_rcnn_R_18_FPN_1x.yaml", 3)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4"]
    cfg.merge_from_list(opts)
    assert any(re.search(message, problem) for problem in check_cfg(cfg)), check_cfg(cfg)
