"""Small nets of Detectron2's classes and of ours, made in the same way, with the same weights."""

from __future__ import annotations

import torch
from detectron2.modeling.backbone import fpn, resnet
from models import randomise_norms_
from torch import nn

import resnet_det.modeling as ours
from resnet_det.modeling.pyramid import FeaturePyramid

KINDS = ("basic", "bottleneck")
WIDTHS = (16, 32, 48, 64)


def make_net(module, kind: str = "bottleneck", norm: str = "FrozenBN", **kwargs) -> nn.Module:
    """A ResNet of two blocks a stage. ``module`` has its classes: Detectron2's resnet.py or our modeling."""
    block_class = module.BasicBlock if kind == "basic" else module.BottleneckBlock
    stages, channels = [], 8
    for index, width in enumerate(WIDTHS):
        bottleneck = {} if kind == "basic" else {"bottleneck_channels": width // 2, "stride_in_1x1": index > 1}
        strides = [1 if index == 0 else 2, 1]
        stages.append(
            module.ResNet.make_stage(
                block_class,
                2,
                in_channels=channels,
                out_channels=width,
                stride_per_block=strides,
                norm=norm,
                **bottleneck,
            )
        )
        channels = width
    kwargs = {"out_features": ["res2", "res3", "res4", "res5"]} | kwargs
    return module.ResNet(module.BasicStem(3, 8, norm), stages, **kwargs)


def make_nets(kind: str = "bottleneck", norm: str = "FrozenBN", **kwargs) -> tuple[nn.Module, nn.Module]:
    """Detectron2's ResNet and ours."""
    return _alike(make_net(resnet, kind, norm, **kwargs), make_net(ours, kind, norm, **kwargs))


def make_pyramids(kind: str = "bottleneck", norm: str = "FrozenBN", **kwargs) -> tuple[nn.Module, nn.Module]:
    """Detectron2's ResNet and FPN, and ours."""
    made = []
    for module, fpn_class in ((resnet, fpn.FPN), (ours, FeaturePyramid)):
        net = make_net(module, kind, norm)
        made.append(fpn_class(net, net._out_features, 16, top_block=fpn.LastLevelMaxPool(), **kwargs))
    return _alike(*made)


def _alike(theirs: nn.Module, ours: nn.Module) -> tuple[nn.Module, nn.Module]:
    randomise_norms_(theirs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def images(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 64, 96, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, x: torch.Tensor, *, training: bool) -> dict[str, torch.Tensor]:
    """Features, with the gradients of everything under "grad <name>" in training."""
    model.train(training)
    if not training:
        with torch.no_grad():
            return model(x)
    model.zero_grad()
    x = x.clone().requires_grad_()
    outputs = model(x)
    generator = torch.Generator().manual_seed(2)
    sum((value * torch.randn(value.shape, generator=generator)).sum() for value in outputs.values()).backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in outputs.items()} | gradients | {"grad input": x.grad}


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To the last digit and in the same layout: what runs is the same."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].stride() == value.stride(), name
        assert torch.equal(actual[name], value), name
