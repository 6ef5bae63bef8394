"""Parts that a user replaces, wraps or patches: what comes out is what Detectron2's ResNet and FPN give after it."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from contract.pairs import KINDS, assert_equal, images, make_nets, make_pyramids, run
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone import resnet
from torch import nn
from torch.nn.utils import parametrizations, prune

EDITS = []


def edit(function):
    """A change that is made to Detectron2's net and to ours."""
    EDITS.append(pytest.param(function, id=function.__name__))
    return function


class Adapter(nn.Module):
    """A low-rank addition to a convolution (LoRA)."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        self.down = nn.Conv2d(conv.in_channels, 2, conv.kernel_size, conv.stride, conv.padding, bias=False)
        self.up = nn.Conv2d(2, conv.out_channels, 1, bias=False)

    def forward(self, x):
        return self.conv(x) + self.up(self.down(x))


class Doubled(Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@edit
def use_four_channels(net):
    net.stem.conv1 = nn.Conv2d(4, 8, 7, 2, 3)


@edit
def use_four_channels_with_a_norm(net):
    net.stem.conv1 = Conv2d(4, 8, 7, stride=2, padding=3, norm=get_norm("BN", 8))


@edit
def use_another_stem(net):
    net.stem = resnet.BasicStem(4, 8, "BN")


@edit
def dilate(net):
    conv = net.res4[1].conv2
    net.res4[1].conv2 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=2, dilation=2)


@edit
def wrap_last(net):
    block = net.res3[0]
    name = "conv3" if hasattr(block, "conv3") else "conv2"
    setattr(block, name, Adapter(getattr(block, name)))


@edit
def wrap_shortcut(net):
    net.res3[0].shortcut = Adapter(net.res3[0].shortcut)


@edit
def subclass_first(net):
    conv = net.res5[1].conv1
    net.res5[1].conv1 = Doubled(
        conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, norm=conv.norm
    )


@edit
def use_group_norm(net):
    net.res3[0].conv1.norm = nn.GroupNorm(4, net.res3[0].conv1.out_channels)


@edit
def use_own_norm(net):
    net.res3[0].conv2.norm = nn.Sequential(nn.BatchNorm2d(net.res3[0].conv2.out_channels), nn.SiLU())


@edit
def remove_norm(net):
    net.res3[1].conv1.norm = None


@edit
def set_activation(net):
    net.res3[1].conv2.activation = nn.SiLU()


@edit
def add_identity_as_shortcut(net):
    net.res3[1].shortcut = nn.Identity()


@edit
def use_identity_as_block(net):
    net.res4[1] = nn.Identity()


@edit
def use_their_block(net):
    net.res3[1] = resnet.BasicBlock(32, 32, norm="BN")


@edit
def replace_a_stage(net):
    stage = nn.Sequential(resnet.BasicBlock(16, 32, stride=2, norm="BN"), nn.Tanh())
    net.res3, net.stages[1] = stage, stage


@edit
def normalise_weight(net):
    parametrizations.weight_norm(net.res4[0].conv2)


@edit
def normalise_weight_by_hook(net):
    nn.utils.weight_norm(net.res4[0].conv2)


@edit
def prune_weight(net):
    prune.l1_unstructured(net.res4[0].conv1, "weight", 0.3)
    prune.l1_unstructured(net.stem.conv1, "weight", 0.3)


@edit
def patch_forward(net):
    conv = net.res2[0].conv1
    plain = conv.forward
    conv.forward = types.MethodType(lambda _, x: plain(x) * 3, conv)


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*:FutureWarning")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", EDITS)
def test_a_replaced_part_of_the_net(change, kind, training):
    results = []
    for net in make_nets(kind, "BN"):
        torch.manual_seed(3)
        change(net)
        channels = getattr(net.stem.conv1, "in_channels", 3)
        results.append(run(net, images(channels), training=training))
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", ["in the list", "by name"])
@pytest.mark.parametrize("part", ["lateral", "output"])
@pytest.mark.parametrize("level", [0, 2])
def test_a_replaced_convolution_of_the_pyramid(part, level, way, training):
    """Detectron2's FPN runs what is in its lists, and trains what is a submodule: there both are replaced."""
    theirs, ours = make_pyramids()
    torch.manual_seed(3)
    old = getattr(theirs, f"{part}_convs")[level]
    new = nn.Sequential(nn.Conv2d(old.in_channels, 16, old.kernel_size, padding=old.padding), nn.Tanh())
    name = f"fpn_{part}{5 - level}"
    getattr(theirs, f"{part}_convs")[level] = new
    setattr(theirs, name, new)
    if way == "by name":
        setattr(ours, name, new)
    else:
        getattr(ours, f"{part}_convs")[level] = new
    assert getattr(ours, name) is new
    expected = run(theirs, images(), training=training)
    assert_equal(run(ours, images(), training=training), expected)


def test_a_stage_is_replaced_by_name_and_in_the_list():
    """In Detectron2's, replacing one by name changes nothing; here both ways do."""
    _, net = make_nets()
    stage = nn.Sequential(resnet.BasicBlock(48, 64, stride=2, norm=""))
    net.stages[3] = stage
    assert net.res5 is stage
    net.res5 = nn.Sequential(nn.Identity())
    assert net.stages[-1] is net.res5
    with torch.no_grad():
        features = net.eval()(images())
    assert torch.equal(features["res5"], features["res4"])


@pytest.mark.parametrize("as_list", [list, nn.ModuleList])
def test_the_lists_are_lists(as_list):
    _, model = make_pyramids()
    new = as_list(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))
    model.output_convs = new
    assert [model.fpn_output5, model.fpn_output4] == list(new)[:2] == model.output_convs[:2]
    assert "output_convs" not in dict(model.named_children())
    shared = nn.Conv2d(16, 16, 1)
    for index in range(4):
        model.output_convs[index] = shared
    assert model.output_convs == [shared] * 4
    model.output_convs[1:3] = list(new)[1:3]
    model.fpn_output6 = nn.Identity()
    assert model.output_convs == [shared, *list(new)[1:3], shared]
    copied = copy.deepcopy(model)
    assert copied.output_convs[0] is copied.fpn_output5
    assert list(run(copied, images(), training=False)) == ["p2", "p3", "p4", "p5", "p6"]
    net = model.bottom_up
    net.stages = as_list(nn.Sequential(nn.Identity()) for _ in range(4))
    assert "stages" not in dict(net.named_children())
    with pytest.raises(ValueError, match="shorter"):
        net.stages = net.stages[:2]
    for change in (lambda: net.stages.append(shared), lambda: net.stages.pop(), lambda: model.lateral_convs.clear()):
        with pytest.raises(TypeError, match="fixed length"):
            change()


def test_a_checkpointed_stage_can_be_anything_and_its_hooks_fire():
    _, net = make_nets()
    net.checkpoint_stages = frozenset(("res3", "res4"))
    net.res3, seen = nn.Conv2d(16, 32, 3, stride=2, padding=1), []
    net.res4.register_forward_hook(lambda *_: seen.append(1))
    expected = run(copy.deepcopy(net).requires_grad_(), images(), training=True)
    net.checkpoint_stages = frozenset()
    seen.clear()
    plain = run(net, images(), training=True)
    assert seen
    assert_equal(expected, plain)
