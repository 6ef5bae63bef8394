"""Responses and lesions against hooks of the test, and nets that are built without the block."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_det.explain.nets import Net
from resnet_det.explain.responses import measure_responses, removable_blocks, without_block


def trained_like(net):
    """Norms with statistics and weights as of a trained net."""
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.2, 1.5)
        norm.bias.data.normal_(0, 0.3)
    return net.eval()


@pytest.mark.parametrize("shortcut", ["pad", "none", "projection"])
def test_responses_are_what_layers_put_out(shortcut):
    net = trained_like(Net(14, shortcut).build(4))
    images = torch.randn(7, 3, 16, 16)
    found = measure_responses(net, images)

    layers, added = [], []
    with torch.no_grad():
        x = F.relu(net.stem.conv1(images))
        for stage in (net.res2, net.res3, net.res4):
            for block in stage:
                first = block.conv1(x)
                second = block.conv2(F.relu(first))
                layers += [first.std(correction=0).item(), second.std(correction=0).item()]
                if shortcut == "none":
                    x = F.relu(second)
                    continue
                if block.shortcut is None:
                    added.append((second.square().mean() / x.square().mean()).sqrt().item())
                x = F.relu(second + (x if block.shortcut is None else block.shortcut(x)))
    assert found["layers"] == pytest.approx(layers, rel=1e-4)
    assert found["blocks"] == pytest.approx(added, rel=1e-4)
    assert len(added) == (0 if shortcut == "none" else 4)


@pytest.mark.parametrize(("shortcut", "count"), [("pad", 6), ("none", 4)])
def test_a_net_without_a_block_is_the_net_that_is_built_without_it(shortcut, count):
    net = trained_like(Net(14, shortcut).build(4))
    images = torch.randn(2, 3, 16, 16)
    places = removable_blocks(net)
    assert len(places) == count
    whole = net(images)["linear"]
    for stage, place in places:
        with without_block(net, stage, place):
            found = net(images)["linear"]
        built = copy.deepcopy(net)
        block = getattr(built, stage)[place]
        if shortcut == "none" or block.shortcut is None:
            del getattr(built, stage)[place]
        else:
            nn.init.zeros_(block.conv2.norm.weight)  # the residual is 0
            nn.init.zeros_(block.conv2.norm.bias)
        torch.testing.assert_close(found, built(images)["linear"])
        assert not torch.allclose(found, whole)
    torch.testing.assert_close(net(images)["linear"], whole)


def test_nearest_means_are_those_of_numpy():
    from resnet_det.explain.features import classify_by_means

    rng = np.random.default_rng(0)
    known, features = (rng.normal(size=(count, 5)) * [1, 1, 9, 1, 1] for count in (60, 40))
    known_labels, labels = np.arange(60) % 3, np.arange(40) % 3
    known[:, 0] += known_labels
    features[:, 0] += labels
    scaled = known / known.std(0, ddof=1)
    means = np.array([scaled[known_labels == label].mean(0) for label in range(3)])
    distances = ((features / known.std(0, ddof=1))[:, None] - means) ** 2
    expected = 100 * (distances.sum(2).argmin(1) == labels).mean()
    tensors = [torch.from_numpy(values) for values in (known, known_labels, features, labels)]
    assert classify_by_means(*tensors) == pytest.approx(expected)
    assert expected > 40
