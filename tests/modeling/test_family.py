"""The members of the family that neither Detectron2, torchvision nor timm has in the same form."""

from __future__ import annotations

import itertools

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from models import make_inputs, randomise_norms_
from torch import nn

from resnet_det import make_resnet
from resnet_det.errors import InputError
from resnet_det.modeling import make_fpn

STAGES = ("res2", "res3", "res4", "res5")


def train_step(model, x):
    """Outputs and gradients of a training step."""
    model.train().zero_grad()
    outputs = model(x)
    sum((output.float() ** 2).mean() for output in outputs.values()).backward()
    return outputs, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 18, "deform_stages": (False, True, True, True)},
        {"depth": 18, "deform_stages": (False, False, False, True), "deform_modulated": True, "deform_num_groups": 2},
        {"depth": 14, "deform_stages": (True, True, True, True), "deform_modulated": True},
        {"depth": 18, "dilations": (1, 1, 2, 4), "norm": "GN"},
        {"depth": 18, "se_reduction": 16, "norm": "LN"},
        {"depth": 18, "preact": True, "norm": "GN"},
        {"depth": 14, "preact": True, "shortcut": "avg_down", "stem": "deep"},
        {"depth": 18, "shortcut": "none"},
        {"depth": 18, "preact": True, "shortcut": "none"},
        {"depth": 18, "stem": "deep_tiered", "in_channels": 1},
        {"depth": 18, "norm": "", "in_channels": 4},
        {"block": "bottleneck", "stage_blocks": (1, 2, 3, 1), "num_groups": 4, "width_per_group": 16},
        {"block": "basic", "stage_blocks": (1, 1, 2, 1), "num_classes": 5},
    ],
)
def test_every_parameter_gets_a_gradient(arguments):
    outputs, gradients = train_step(make_resnet(**arguments), torch.randn(2, arguments.get("in_channels", 3), 65, 70))
    assert all(output.isfinite().all() for output in outputs.values())
    without = [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("depth", [14, 18])
def test_deformable_blocks_with_zero_offsets_are_ordinary_ones(depth, modulated):
    plain = make_resnet(depth).eval()
    randomise_norms_(plain)
    deformable = make_resnet(depth, deform_stages=(False, True, True, True), deform_modulated=modulated).eval()
    deformable.load_state_dict(plain.state_dict(), strict=False)
    if modulated:  # the mask is sigmoid(0) = 0.5 at the start
        for name, module in deformable.named_modules():
            if name.endswith("conv2") and hasattr(deformable.get_submodule(name.rpartition(".")[0]), "conv2_offset"):
                module.weight.data *= 2
    x = torch.randn(1, 3, 65, 70)
    for name, output in plain(x).items():
        torch.testing.assert_close(deformable(x)[name], output, rtol=1e-4, atol=1e-4)


def test_dilated_stages_keep_their_resolution():
    dilated = make_resnet(18, dilations=(1, 1, 2, 4))
    assert {name: shape.stride for name, shape in dilated.output_shape().items()} == dict(
        zip(STAGES, (4, 8, 8, 8), strict=True)
    )
    assert dilated(torch.randn(1, 3, 128, 96))["res5"].shape == (1, 512, 16, 12)
    assert [conv.dilation for conv in (dilated.res5[0].conv1, dilated.res5[0].conv2)] == [(4, 4), (4, 4)]


@pytest.mark.parametrize("top_block", ["max_pool", "p6p7"])
@pytest.mark.parametrize("dilations", [(1, 1, 1, 2), (1, 1, 2, 4), (1, 2, 2, 2)])
def test_fpn_over_dilated_stages(dilations, top_block):
    backbone = make_resnet(18, dilations=dilations)
    fpn = make_fpn(backbone, STAGES, out_channels=32, top_block=top_block)
    strides = list(backbone.spec.strides.values())[1:]
    shapes = fpn.output_shape()
    assert list(shapes) == ["p2", "p3", "p4", "p5", "p6"] + (["p7"] if top_block == "p6p7" else [])
    assert [shapes[name].stride for name in ("p2", "p3", "p4", "p5")] == strides
    assert shapes["p6"].stride == 2 * strides[-1]
    outputs, gradients = train_step(fpn, torch.randn(1, 3, 128, 256))
    for name, output in outputs.items():
        assert output.shape == (1, 32, 128 // shapes[name].stride, 256 // shapes[name].stride), name
    assert all(gradient is not None for gradient in gradients.values())
    assert set(fpn.state_dict()) == set(
        make_fpn(make_resnet(18), STAGES, out_channels=32, top_block=top_block).state_dict()
    )


def test_fpn_over_dilated_stages_adds_what_detectron2s_adds():
    """Without dilation the two classes must agree."""
    from resnet_det.modeling.pyramid import FreeStridesFPN, LastLevelMaxPool

    bottom_up = make_resnet(18).eval()
    theirs = make_fpn(bottom_up, STAGES, out_channels=16, fuse_type="avg").eval()
    ours = FreeStridesFPN(bottom_up, list(STAGES), 16, "", LastLevelMaxPool(), "avg").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for name, output in theirs(x).items():
        torch.testing.assert_close(ours(x)[name], output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fuse_type": "max"}, "fuse_type is 'max'; choose one of sum, avg"),
        ({"top_block": "p6"}, "top_block is 'p6'; choose one of max_pool, p6p7"),
        ({"in_features": ["res2", "res3"], "top_block": "p6p7"}, "end with res3, and top_block p6p7 is made of res4"),
        ({"in_features": ["res2", "res6"]}, "in_features of the FPN has 'res6'; choose from res2, res3, res4"),
        ({"in_features": ["res2", "res4"]}, "name neighbouring stages, finest first"),
        ({"in_features": ["res4", "res3"]}, "name neighbouring stages, finest first"),
        ({"in_features": []}, "in_features of the FPN is empty"),
    ],
)
def test_impossible_pyramids(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_fpn(make_resnet(18, out_features=["res2", "res3", "res4"]), **arguments)


def test_detector_with_dilation_under_fpn(default_cfg):
    cfg = default_cfg
    cfg.merge_from_file("configs/COCO-Detection/faster_rcnn_R_18_FPN_1x.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNET_DET.DILATIONS = [1, 1, 1, 2]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4"]
    model = build_model(cfg)
    with EventStorage():
        losses = model(make_inputs(cfg))
    assert all(loss.isfinite() for loss in losses.values())


def test_checkpointing_changes_nothing_but_memory():
    arguments = {"depth": 34, "norm": "BN", "se_reduction": 16, "stochastic_depth": 0.3}  # up to 6 blocks in a stage
    plain, checkpointed = (
        make_resnet(**arguments),
        make_resnet(**arguments, checkpoint_stages=(True, True, False, True)),
    )
    randomise_norms_(plain)
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 65, 70)
    results = []
    for model in (plain, checkpointed):
        torch.manual_seed(1)  # the blocks that stochastic depth skips
        results.append(train_step(model, x))
    for name, output in results[0][0].items():
        assert torch.equal(results[1][0][name], output)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient)
    for name, value in plain.state_dict().items():  # running statistics are updated once, not twice
        assert torch.equal(checkpointed.state_dict()[name], value), name


def test_checkpointing_can_be_compiled():
    net = make_resnet(14, norm="FrozenBN", checkpoint_stages=(True,) * 4)
    randomise_norms_(net)
    x = torch.randn(1, 3, 64, 64)
    expected, expected_gradients = train_step(net, x)
    torch._dynamo.reset()
    compiled = make_resnet(14, norm="FrozenBN", checkpoint_stages=(True,) * 4)
    compiled.load_state_dict(net.state_dict())
    compiled.compile(backend="aot_eager", fullgraph=True)
    outputs, gradients = train_step(compiled, x)
    torch._dynamo.reset()
    for name, output in expected.items():
        torch.testing.assert_close(outputs[name], output, rtol=1e-4, atol=1e-5)
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).norm() <= 0.01 * gradient.norm(), name


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    model = make_resnet(18, stochastic_depth=0.6)
    chances = [block.drop.p if block.drop else 0.0 for name in STAGES for block in getattr(model, name)]
    assert chances == pytest.approx([0.6 * index / 7 for index in range(8)])
    block = model.res5[1].train()
    x = torch.randn(1, 512, 4, 4).expand(4000, 512, 4, 4)[:, :, :1, :1]
    kept = block.finish_residual(x)
    assert (kept == 0).all(dim=(1, 2, 3)).float().mean() == pytest.approx(0.6, abs=0.05)
    torch.testing.assert_close(kept.mean(0), x[0], rtol=0.2, atol=0.2)
    plain = make_resnet(18).eval()
    model.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(image)["res5"], plain(image)["res5"])


@pytest.mark.parametrize("depth", [14, 18])
def test_hooks_on_every_part_of_a_preactivation_block_fire_once(depth):
    block, called = make_resnet(depth, preact=True).res3[0].eval(), []
    for name, module in block.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: called.append((name, out.shape[1])))
    block(torch.randn(1, block.in_channels, 8, 8))
    inside = {"conv1": block.conv1.out_channels, "conv1.norm": block.in_channels, "shortcut": block.out_channels}
    assert sorted(name for name, _ in called) == sorted(name for name, _ in block.named_modules())
    assert inside.items() <= dict(called).items()


@pytest.mark.parametrize("depth", [14, 18])
def test_zero_initialised_blocks_start_as_their_shortcut(depth):
    model = make_resnet(depth, zero_init_residual=True).eval()
    x = torch.randn(1, 256 if depth == 14 else 64, 8, 8).abs()
    block = make_resnet(stage_blocks=(2, 1, 1, 1), block=model.spec.block, zero_init_residual=True).res2[1].eval()
    torch.testing.assert_close(block(x), x)


def test_the_plain_net_has_no_shortcuts():
    plain = make_resnet(34, shortcut="none")
    assert not [name for name in plain.state_dict() if "shortcut" in name]
    block = plain.res2[0].eval()
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(block(x), block.conv2(block.conv1(x).relu()).relu())


def test_any_subset_and_order_of_features():
    x = torch.randn(1, 3, 64, 64)
    full = make_resnet(18, out_features=("stem", *STAGES)).eval()
    expected = full(x)
    for names in itertools.permutations(("stem", "res3", "res5"), 2):
        model = make_resnet(18, out_features=names).eval()
        model.load_state_dict(full.state_dict(), strict=False)
        assert list(model.output_shape()) == list(names)
        for name, output in model(x).items():
            assert torch.equal(output, expected[name])


def test_classification_head():
    model = make_resnet(18, num_classes=9).eval()
    assert model.output_shape()["linear"].channels == 9
    logits = model(torch.randn(2, 3, 64, 64))["linear"]
    assert logits.shape == (2, 9)
    assert isinstance(model.linear, nn.Linear)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 51}, "depth is 51; choose one of 10, 14, 18"),
        ({"block": "basic"}, "depth 50 has bottleneck blocks"),
        ({"stem": "5x5"}, "stem is '5x5'; choose one of 7x7, deep, deep_tiered, 3x3"),
        ({"shortcut": "identity"}, "choose one of projection, avg_down, pad, none"),
        ({"se_reduction": -1}, "se_reduction is -1"),
        ({"stochastic_depth": 1.0}, r"stochastic_depth is 1.0; give a chance in \[0, 1\)"),
        ({"preact": True, "zero_init_residual": True}, "zero_init_residual needs a trainable norm"),
        ({"preact": True, "deform_stages": (True,) * 4}, "preact blocks have no deformable"),
        ({"out_features": ("linear",)}, "out_features has 'linear'; choose from stem, res2"),
        ({"checkpoint_stages": (True,)}, "there are 4 stages: give a value for each of res2, res3, res4, res5"),
        ({"norm": "IN", "stem": "x"}, "stem is 'x'.*norm is 'IN'"),
    ],
)
def test_impossible_nets(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_resnet(**arguments)


def test_keys_of_the_config_reach_the_net(default_cfg):
    node = default_cfg.MODEL.RESNET_DET
    node.STAGE_BLOCKS, node.BLOCK = [1, 2, 1, 1], "basic"
    node.STEM, node.SHORTCUT, node.SE_REDUCTION = "deep", "avg_down", 8
    node.DILATIONS, node.STOCHASTIC_DEPTH = [1, 1, 2, 2], 0.1
    node.CHECKPOINT_STAGES, node.ZERO_INIT_RESIDUAL = [True, False, False, True], True
    default_cfg.MODEL.BACKBONE.NAME = "build_resnet_det_backbone"
    default_cfg.MODEL.BACKBONE.FREEZE_AT, default_cfg.MODEL.RESNETS.NORM = 0, "BN"
    default_cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res5"]
    spec = build_backbone(default_cfg).spec
    expected = make_resnet(
        stage_blocks=(1, 2, 1, 1),
        block="basic",
        res2_out_channels=64,
        stem="deep",
        shortcut="avg_down",
        se_reduction=8,
        dilations=(1, 1, 2, 2),
        stochastic_depth=0.1,
        checkpoint_stages=(True, False, False, True),
        zero_init_residual=True,
        stride_in_1x1=True,
        out_features=("res3", "res5"),
    ).spec
    assert spec == expected
    node.STAGE_BLOCKS, node.BLOCK = [], "bottleneck"
    default_cfg.MODEL.RESNETS.DEPTH = 18
    with pytest.raises(InputError, match="block is 'bottleneck', but depth 18 has basic blocks"):
        build_backbone(default_cfg)
