"""Nets whose weights come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resnet_det.errors import InputError
from resnet_det.explain.data import Data
from resnet_det.explain.nets import read_net
from resnet_det.explain.recipe import make_test_cfg
from resnet_det.explain.trained import Trained
from resnet_det.weights import find_conventions

NUM_IMAGES = 500  # that tell plain nets from residual ones


def read_published(paths: Sequence[Path], data: Data, device: str) -> list[Trained]:
    """Nets whose weights are given, by depth.

    Raises:
        InputError: a file cannot be used, or two of them hold nets of one kind and depth.
    """
    found: dict[str, Trained] = {}
    for path in map(Path, paths):
        net = read_net(path)
        conventions = find_conventions(path)
        if conventions is None:
            raise InputError(f"--weights {path}: what pixels it was trained with is not known")
        cfg = make_test_cfg(net, data.classes, device)
        cfg.INPUT.FORMAT = conventions.channel_order
        cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(conventions.pixel_mean), list(conventions.pixel_std)
        trained = _tell_kind(Trained(net, path, cfg), data)
        if trained.name in found:
            raise InputError(
                f"--weights {found[trained.name].weights} {path}: both are {trained.name}; give one net of each kind "
                "and depth"
            )
        found[trained.name] = trained
    return sorted(found.values(), key=lambda trained: (trained.net.depth, trained.name))


def _tell_kind(trained: Trained, data: Data) -> Trained:
    """The net; or the plain one, if with the same weights that is less often wrong.

    Why: where shortcuts have no weights, plain and residual nets have the same names and shapes.
    """
    if trained.net.shortcut != "pad":
        return trained
    plain = replace(trained.net, shortcut="none")
    cfg = trained.cfg.clone()
    cfg.MODEL.RESNET_DET.SHORTCUT = plain.shortcut
    images = data.images("test", NUM_IMAGES)
    candidates = trained, replace(trained, net=plain, cfg=cfg)
    return min(candidates, key=lambda one: one.evaluate(one.load(), images)["top1_error"])
