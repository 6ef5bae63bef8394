"""The same weights give the same numbers as in torchvision and timm."""

from __future__ import annotations

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from resnet_det import load_weights, make_resnet

STAGES = ("res2", "res3", "res4", "res5")

# Arguments of make_resnet, and the number of parameters with the classification head for 1000 classes.
TORCHVISION = {
    "resnet18": ({"depth": 18}, 11_689_512),
    "resnet34": ({"depth": 34}, 21_797_672),
    "resnet50": ({"depth": 50}, 25_557_032),
    "resnet101": ({"depth": 101}, 44_549_160),
    "resnet152": ({"depth": 152}, 60_192_808),
    "resnext50_32x4d": ({"depth": 50, "num_groups": 32, "width_per_group": 4}, 25_028_904),
    "resnext101_32x8d": ({"depth": 101, "num_groups": 32, "width_per_group": 8}, 88_791_336),
    "resnext101_64x4d": ({"depth": 101, "num_groups": 64, "width_per_group": 4}, 83_455_272),
    "wide_resnet50_2": ({"depth": 50, "width_per_group": 128}, 68_883_240),
    "wide_resnet101_2": ({"depth": 101, "width_per_group": 128}, 126_886_696),
}
DEEP = {"stem": "deep", "shortcut": "avg_down"}
TIMM = {
    "resnet14t": ({"depth": 14, "stem": "deep_tiered", "shortcut": "avg_down"}, 10_081_632),
    "resnet18": ({"depth": 18}, 11_689_512),
    "resnet26": ({"depth": 26}, 15_995_176),
    "resnet34": ({"depth": 34}, 21_797_672),
    "resnet50": ({"depth": 50}, 25_557_032),
    "resnet50d": ({"depth": 50, **DEEP}, 25_576_264),
    "resnet101d": ({"depth": 101, **DEEP}, 44_568_392),
    "resnet152": ({"depth": 152}, 60_192_808),
    "resnet200d": ({"depth": 200, **DEEP}, 64_693_064),
    "resnext50_32x4d": ({"depth": 50, "num_groups": 32, "width_per_group": 4}, 25_028_904),
    "seresnet50": ({"depth": 50, "se_reduction": 16}, 28_088_024),
    "wide_resnet50_2": ({"depth": 50, "width_per_group": 128}, 68_883_240),
    "resnet50_gn": ({"depth": 50, "norm": "GN"}, 25_557_032),
    "resnetv2_50": ({"depth": 50, "preact": True}, 25_549_352),
}


def randomise_(model: nn.Module) -> None:
    """Norm statistics and weights that are not those of a new model; the last of a block small, for deep nets."""
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            last = name.endswith("bn3") or (name.endswith("bn2") and "layer1.0.bn3" not in dict(model.named_modules()))
            nn.init.uniform_(module.weight, 0.1 if last else 0.5, 0.4 if last else 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    assert ours.shape == theirs.shape, what
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max(), what


@torch.no_grad()
def compare(theirs: nn.Module, path, arguments: dict, num_parameters: int, stages: list[nn.Module]) -> None:
    """Compare four feature maps and logits of ``theirs`` with a model of ours that read ``path``."""
    ours = make_resnet(**arguments, num_classes=1000, out_features=(*STAGES, "linear")).eval()
    report = load_weights(ours, path)
    assert not report.missing
    assert not report.unexpected
    assert not report.wrong_shape
    assert sum(parameter.numel() for parameter in ours.parameters()) == num_parameters
    seen = {}
    for name, stage in zip(STAGES, stages, strict=True):
        stage.register_forward_hook(lambda *args, name=name: seen.__setitem__(name, args[2]))
    for size in ((64, 64), (97, 75)):
        x = torch.randn(2, 3, *size)
        seen["linear"] = theirs(x)
        for name, output in ours(x).items():
            assert_equal(output, seen[name], f"{name} at {size}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * ("101_" in name or "152" in name)) for name in TORCHVISION]
)
def test_torchvision(name, tmp_path):
    theirs = torchvision.models.get_model(name).eval()
    randomise_(theirs)
    path = tmp_path / f"{name}.pth"
    torch.save(theirs.state_dict(), path)
    compare(theirs, path, *TORCHVISION[name], [theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * name.startswith(("resnet101", "resnet152", "resnet200")))
        for name in TIMM
    ],
)
def test_timm(name, tmp_path):
    theirs = timm.create_model(name).eval()
    randomise_(theirs)
    path = tmp_path / f"{name}.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    if name.startswith("resnetv2"):  # res5 is what follows the last norm and activation
        stages = [*list(theirs.stages)[:3], theirs.norm]
    else:
        stages = [theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4]
    compare(theirs, path, *TIMM[name], stages)
