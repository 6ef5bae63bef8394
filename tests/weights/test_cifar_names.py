"""Weights of the usual nets for CIFAR-10, as akamaster's and kuangliu's programs write them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_det import load_weights, make_resnet
from resnet_det.errors import InputError
from resnet_det.weights import convert_weights, find_conventions, find_entry, naming_of


class Block(nn.Module):
    def __init__(self, before, width, stride, projects):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        self.zeros = (width - before) // 2
        if projects and before != width:
            projection = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut, self.zeros = nn.Sequential(projection, nn.BatchNorm2d(width)), 0

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.zeros:
            return F.relu(out + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.zeros, self.zeros)))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-8, 14, ... in those programs' names."""

    def __init__(self, num_blocks=1, projects=False, stages=3):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for number in range(1, stages + 1):
            width = 8 * 2**number
            before = 16 if number == 1 else width // 2
            blocks = [Block(before, width, 1 if number == 1 else 2, projects)]
            blocks += [Block(width, width, 1, projects) for _ in range(num_blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(width, 10)
        self.stages = stages
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean, -0.3, 0.3)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
                nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.linear(x.mean((2, 3)))


def make_ours(num_blocks=1, shortcut="pad", **fields):
    sizes = {"stem": "3x3", "stem_out_channels": 16, "res2_out_channels": 16, "num_classes": 10}
    return make_resnet(**{"block": "basic", "stage_blocks": (num_blocks,) * 3, "shortcut": shortcut, **sizes, **fields})


def write(net, path):
    """As nn.DataParallel and the programs do."""
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.0}, path)
    return path


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_weights_are_read_whole_and_give_the_same_logits(tmp_path, shortcut):
    theirs = CifarResNet(num_blocks=2, projects=shortcut == "projection").eval()
    ours = make_ours(2, shortcut).eval()
    report = load_weights(ours, write(theirs, tmp_path / "net.th"))
    assert (report.missing, report.unexpected, report.wrong_shape) == ((), (), ())
    assert report.naming == "torchvision"
    assert report.file_model == report.model == "CIFAR ResNet-14"
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)["linear"], theirs(image), rtol=1e-4, atol=1e-4)


def test_a_file_for_another_net_says_which_it_is(tmp_path):
    with pytest.raises(InputError, match="this file is a CIFAR ResNet-8, the config says CIFAR ResNet-14"):
        load_weights(make_ours(2), write(CifarResNet(), tmp_path / "net.th"))


def test_what_pixels_they_expect(tmp_path):
    entry = find_entry("cifar10://resnet20")
    assert entry.url.endswith(f"resnet20-{entry.sha256}.th")
    assert entry.conventions.channel_order == "RGB"
    assert entry.conventions.pixel_mean == pytest.approx([255 * mean for mean in (0.485, 0.456, 0.406)])
    assert entry.conventions.pixel_std == pytest.approx([255 * std for std in (0.229, 0.224, 0.225)])
    assert find_conventions(write(CifarResNet(), tmp_path / "three.th")) == entry.conventions
    assert find_conventions(write(CifarResNet(projects=True, stages=4), tmp_path / "four.th")) is None


def test_they_can_be_converted(tmp_path):
    report = convert_weights(write(CifarResNet(), tmp_path / "net.th"), tmp_path / "new.pth", strip=True)
    assert report.model == "CIFAR ResNet-8"
    assert report.left_out == ("best_prec1",)
    convert_weights(tmp_path / "new.pth", tmp_path / "back.pth", naming="torchvision")
    state = torch.load(tmp_path / "back.pth")
    assert naming_of(state.get("model", state)) == "torchvision"
    assert not load_weights(make_ours(), tmp_path / "back.pth").missing
