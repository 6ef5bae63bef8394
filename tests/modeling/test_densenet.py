"""DenseNets: torchvision's numbers from torchvision's files, and detectors on them."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from models import check_trains_and_detects, make_inputs
from safetensors.torch import load_file
from torch import nn

from resnet_det import load_weights, make_densenet, make_resnet, prepare_for_inference
from resnet_det.analysis import analyze_model
from resnet_det.config import check_cfg, read_densenet_spec
from resnet_det.engine.initial_weights import prepare_weights
from resnet_det.engine.resuming import check_fixed_settings, read_fixed_settings
from resnet_det.errors import InputError
from resnet_det.modeling import make_fpn
from resnet_det.weights import (
    TRAINED_WITH,
    Conventions,
    convert_weights,
    find_conventions,
    find_entry,
    to_json,
    write_tensors,
)

SMALL = {"growth_rate": 8, "block_config": (2, 3, 2, 2), "num_init_features": 16, "num_classes": 7}
OWN_SMALL = {"growth_rate": 8, "stage_layers": (2, 3, 2, 2), "stem_out_channels": 16}
STAGES = ("res2", "res3", "res4", "res5")
# Parameters with a head for 1000 classes, as torchvision documents them.
PARAMETERS = {121: 7_978_856, 161: 28_681_000, 169: 14_149_480, 201: 20_013_928}


def make_theirs(depth=None, **fields):
    """torchvision's, with norms that do something."""
    torch.manual_seed(2)
    net = torchvision.models.get_model(f"densenet{depth}") if depth else torchvision.models.DenseNet(**SMALL | fields)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net.eval()


def rename_as_published(state):
    """The files to be downloaded were written by an old version: norm.1 for norm1."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", name): tensor for name, tensor in state.items()}


def close(found, expected):
    return (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "densenet.pth"
    torch.save(make_theirs().state_dict(), path)
    return path


@torch.no_grad()
def assert_the_same(theirs, ours, path, sizes):
    report = load_weights(ours, path)
    assert (report.missing, report.unexpected, report.wrong_shape) == ((), (), ())
    assert report.naming == "torchvision"
    assert report.file_model == report.model
    seen = {}
    features = theirs.features
    for number in (1, 2, 3):
        block = getattr(features, f"denseblock{number}")
        block.register_forward_hook(lambda *args, name=f"res{number + 1}": seen.__setitem__(name, args[2].clone()))
    for size in sizes:
        x = torch.randn(2, 3, *size)
        expected = {"linear": theirs(x), **seen, "res5": features(x).relu()}
        outputs = ours(x)
        assert set(outputs) == set(expected)
        for name, output in outputs.items():
            assert output.shape == expected[name].shape, name
            assert close(output, expected[name]), f"{name} at {size}"
    return report


@pytest.mark.parametrize("published", [False, True])
def test_a_small_one_is_torchvisions(tmp_path, published):
    theirs = make_theirs()
    state = theirs.state_dict()
    torch.save(rename_as_published(state) if published else state, tmp_path / "net.pth")
    ours = make_densenet(**OWN_SMALL, num_classes=7, out_features=(*STAGES, "linear")).eval()
    assert_the_same(theirs, ours, tmp_path / "net.pth", [(64, 64), (97, 75), (130, 33)])


@pytest.mark.parametrize("depth", [121, *(pytest.param(depth, marks=pytest.mark.long) for depth in (161, 169, 201))])
def test_whole_ones_are_torchvisions(tmp_path, depth):
    theirs = make_theirs(depth)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    ours = make_densenet(depth, num_classes=1000, out_features=(*STAGES, "linear")).eval()
    report = assert_the_same(theirs, ours, tmp_path / "net.pth", [(64, 64), (97, 75)])
    assert report.model == f"DenseNet-{depth}"


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameters(depth):
    with torch.device("meta"):
        net = make_densenet(depth, num_classes=1000)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[depth]
    assert find_entry(f"torchvision://densenet{depth}").conventions.channel_order == "RGB"


def test_weights_go_there_and_back(tmp_path, small_file):
    assert find_conventions(small_file) == find_entry("torchvision://densenet121").conventions
    report = convert_weights(small_file, tmp_path / "own.pth")
    assert report.model == "DenseNet of 2, 3, 2, 2 layers that add 8 channels"
    assert not report.left_out
    for naming in ("torchvision", "timm"):
        back = convert_weights(tmp_path / "own.pth", tmp_path / f"{naming}.safetensors", naming=naming)
        assert not back.left_out
        net = torchvision.models.DenseNet(**SMALL)
        net.load_state_dict(load_file(tmp_path / f"{naming}.safetensors"))
    with pytest.raises(InputError, match="caffe2 has no name for"):
        convert_weights(tmp_path / "own.pth", tmp_path / "no.pkl", naming="caffe2")


def test_a_file_of_the_other_kind_is_told_as_such(tmp_path, small_file):
    with pytest.raises(InputError, match=r"this file is a DenseNet of 2, 3, 2, 2 .*, the config says ResNet-18"):
        load_weights(make_resnet(18), small_file)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="this file is a ResNet-18, the config says DenseNet-121"):
        load_weights(make_densenet(121, out_features=("res2",)), tmp_path / "resnet.pth")


def test_training_and_checkpointing_and_freezing():
    image, results = torch.randn(2, 3, 64, 70), []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        net = make_densenet(**OWN_SMALL, checkpoint_stages=(checkpointed,) * 4, freeze_at=2).train()
        outputs = net(image)
        sum(output.square().mean() for output in outputs.values()).backward()
        results.append((outputs, {name: p.grad for name, p in net.named_parameters()}, net.state_dict()))
    for name, output in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], output)
    for name, gradient in results[0][1].items():
        assert (gradient is None) == name.startswith(("stem", "res2")), name
        if gradient is not None:
            torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-4, atol=1e-6)
    for name, value in results[0][2].items():
        torch.testing.assert_close(results[1][2][name], value)
    strides = {name: shape.stride for name, shape in net.output_shape().items()}
    assert strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    assert net.spec.strides == {"stem": 4, **strides}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_prepared_ones_put_out_the_same(small_file, dtype):
    net = make_fpn(make_densenet(**OWN_SMALL), out_channels=16, norm="BN").eval()
    load_weights(net, small_file)
    image = torch.randn(1, 3, 128, 96)
    expected, prepared = net(image), prepare_for_inference(net, dtype=dtype)
    assert prepared.bottom_up.stem.conv1.norm is None
    for name, output in prepared(image).items():
        share = (output.float() - expected[name]).abs().max() / expected[name].abs().max()
        assert share < (1e-4 if dtype == torch.float32 else 0.1), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 120}, "depth is 120; choose one of 121, 161, 169, 201"),
        ({"growth_rate": 0}, "growth_rate is 0; it must be at least 1"),
        ({"stage_layers": ()}, "stage_layers is empty"),
        ({"stage_layers": (2, 0)}, r"stage_layers is \[2, 0\]; each must be at least 1"),
        ({"norm": "IN", "freeze_at": 6}, "freeze_at is 6; choose 0 .*norm is 'IN'; choose one of"),
        ({"out_features": ("linear",)}, "out_features has 'linear'; choose from stem, res2, res3, res4, res5"),
    ],
)
def test_impossible_nets(fields, message):
    with pytest.raises(ValueError, match=message):
        make_densenet(**fields)


@pytest.fixture
def cfg(default_cfg):
    cfg = default_cfg
    cfg.merge_from_file("configs/Base-RCNN-FPN-torchvision.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.DEPTH = "build_densenet_det_fpn_backbone", 121
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 16, 16, 20
    return cfg


def test_a_detector_trains_and_detects(cfg):
    assert check_cfg(cfg) == []
    model = build_model(cfg)
    assert {name: shape.stride for name, shape in model.backbone.output_shape().items()} == {
        "p2": 4,
        "p3": 8,
        "p4": 16,
        "p5": 32,
        "p6": 64,
    }
    assert not any(p.requires_grad for p in model.backbone.bottom_up.res2.parameters())
    inputs = make_inputs(cfg, ((64, 90),))
    check_trains_and_detects(model, inputs)
    costs = {cost.name: cost for cost in analyze_model(model, inputs[0]["image"], repeats=0)}
    assert list(costs)[:6] == ["stem", *STAGES, "FPN"]
    assert costs["res3"].parameters == sum(p.numel() for p in model.backbone.bottom_up.res3.parameters())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.DEPTH", 50], "MODEL.RESNETS: depth is 50; choose one of 121, 161, 169, 201"),
        (["MODEL.RESNETS.NUM_GROUPS", 32], "MODEL.RESNETS.NUM_GROUPS is 32, and a DenseNet has no such part"),
        (["MODEL.RESNET_DET.STEM", "deep"], "MODEL.RESNET_DET.STEM is 'deep', and a DenseNet has no such part"),
        (["MODEL.RESNETS.OUT_FEATURES", ["res6"]], "out_features has 'res6'; choose from stem, res2"),
        (["MODEL.BACKBONE.FREEZE_AT", 6], "freeze_at is 6"),
    ],
)
def test_keys_that_do_not_fit(cfg, opts, message):
    cfg.merge_from_list(opts)
    with pytest.raises(InputError, match=message):
        read_densenet_spec(cfg)
    assert any(message.replace("MODEL.RESNETS: ", "") in problem for problem in check_cfg(cfg))


def test_every_key_of_other_nets_is_refused_unless_it_is_as_by_default(cfg):
    used = {"DEPTH", "NORM", "OUT_FEATURES", "CHECKPOINT_STAGES", "MATCH_WEIGHTS", "CHECK_WEIGHTS"}
    used |= {"ALLOW_FROZEN_RANDOM", "STRIDE_IN_1X1"}
    cfg.MODEL.RESNETS.RES4_DILATION, cfg.MODEL.RESNETS.AVD = 1, False  # as DeepLab and ResNeSt add them
    keys = [(section, name) for section in ("RESNETS", "RESNET_DET") for name in cfg.MODEL[section] if name not in used]
    read_densenet_spec(cfg)
    for section, name in keys:
        before = cfg.MODEL[section][name]
        cfg.MODEL[section][name] = (
            "x" if isinstance(before, str) else [True] if isinstance(before, list) else before + 1
        )
        with pytest.raises(InputError, match=rf"MODEL.{section}.{name} is .* and a DenseNet has no such part"):
            read_densenet_spec(cfg)
        cfg.MODEL[section][name] = before


@pytest.mark.parametrize("match", [True, False])
def test_where_bottlenecks_stride_means_nothing_to_it(cfg, tmp_path, match):
    """Runs and files from before STRIDE_IN_1X1 was ignored say False of it."""
    pixels = tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)
    said = to_json(Conventions(cfg.INPUT.FORMAT, *pixels, stride_in_1x1=False))
    write_tensors({"a": torch.zeros(1)}, tmp_path / "net.safetensors", extra={TRAINED_WITH: said})
    cfg.MODEL.WEIGHTS, cfg.MODEL.RESNET_DET.MATCH_WEIGHTS = str(tmp_path / "net.safetensors"), match
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True
    assert check_cfg(cfg) == []
    prepare_weights(cfg)
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is True
    saved = read_fixed_settings(cfg) | {"MODEL.RESNETS.STRIDE_IN_1X1": False}
    check_fixed_settings(read_fixed_settings(cfg), saved)
