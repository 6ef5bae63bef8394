"""Signals, gradients and subsets against what is computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from resnet_det.explain.data import choose_subset
from resnet_det.explain.nets import Net
from resnet_det.explain.signals import measure_signals, thin


@pytest.mark.parametrize("shortcut", ["pad", "none"])
def test_signals_are_those_of_the_net_written_down(shortcut):
    net = Net(8, shortcut, norm="").build(3).double()
    images, labels = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    found = measure_signals(net, images, labels)

    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in net.state_dict().items()}
    x = F.conv2d(images, weights["stem.conv1.weight"], padding=1).relu()
    outputs = []
    for stage in ("res2", "res3", "res4"):
        stride = 1 if stage == "res2" else 2
        short = x[:, :, ::stride, ::stride]
        if stage != "res2":
            half = torch.zeros_like(short)[:, : short.shape[1] // 2]
            short = torch.cat([half, short, half], dim=1)
        out = F.conv2d(x, weights[f"{stage}.0.conv1.weight"], stride=stride, padding=1).relu()
        out = F.conv2d(out, weights[f"{stage}.0.conv2.weight"], padding=1)
        x = (out if shortcut == "none" else out + short).relu()
        outputs.append(x)
    logits = x.mean((2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]
    loss = F.cross_entropy(logits, labels)
    convs = [f"{stage}.0.{conv}.weight" for stage in ("res2", "res3", "res4") for conv in ("conv1", "conv2")]
    layers = [weights[name] for name in ("stem.conv1.weight", *convs, "linear.weight")]
    gradients = torch.autograd.grad(loss, [*outputs, *layers])
    assert found["activation"] == pytest.approx([(one**2).mean().sqrt().item() for one in outputs])
    assert found["gradient"] == pytest.approx([one.norm().item() for one in gradients[:3]])
    assert found["weight_gradient"] == pytest.approx([one.norm().item() for one in gradients[3:]])
    assert len(found["weight_gradient"]) == 8
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_thinned_curve_keeps_its_ends():
    assert thin(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert thin([1, 2, 3], 5) == [1, 2, 3]


def test_subsets_have_all_classes_and_lie_in_larger_ones():
    labels = np.repeat(np.arange(5), (50, 40, 30, 20, 10))
    small, large = (choose_subset(labels, count, 3) for count in (10, 40))
    assert len(small) == 10
    assert set(small) < set(large)
    assert np.bincount(labels[small]).tolist() == [2] * 5
    assert np.bincount(labels[large]).tolist() == [8] * 5
    assert choose_subset(labels, 0, 3) == choose_subset(labels, 999, 3) == list(range(150))
    assert choose_subset(labels, 10, 4) != small
