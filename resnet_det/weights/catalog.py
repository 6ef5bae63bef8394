"""What is known about published ResNet weights: where they are and what they were trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torchvision
from detectron2.checkpoint.catalog import ModelCatalog

from resnet_det.errors import InputError


@dataclass(frozen=True)
class Conventions:
    """What weights expect of their input and of the net, which no tensor shows.

    Attributes:
        channel_order: INPUT.FORMAT.
        pixel_mean, pixel_std: of each channel in that order, 0 to 255.
        stride_in_1x1: MODEL.RESNETS.STRIDE_IN_1X1; without a meaning for basic blocks. None: not known, or of a net
            without such a choice.
        net: what else of the net is known, by :func:`resnet_det.weights.describe_net`.
    """

    channel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    stride_in_1x1: bool | None
    net: Mapping[str, Any] = field(default_factory=dict)


_BGR_MEAN = (103.530, 116.280, 123.675)
MSRA = Conventions("BGR", _BGR_MEAN, (1.0, 1.0, 1.0), stride_in_1x1=True)
CAFFE2_GN = Conventions("BGR", _BGR_MEAN, (1.0, 1.0, 1.0), stride_in_1x1=False)
CAFFE2_RESNEXT = Conventions("BGR", _BGR_MEAN, (57.375, 57.120, 58.395), stride_in_1x1=False)
CAFFE2_RESNEXT_FUSED = Conventions("BGR", _BGR_MEAN, (1.0, 1.0, 1.0), stride_in_1x1=False)
TORCHVISION = Conventions("RGB", (123.675, 116.280, 103.530), (58.395, 57.120, 57.375), stride_in_1x1=False)
TORCHVISION_DENSENET = replace(TORCHVISION, stride_in_1x1=None)
TIMM_HALF = Conventions("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), stride_in_1x1=False)

_RESNET = "arXiv 1512.03385"
_RESNEXT = "arXiv 1611.05431"


@dataclass(frozen=True)
class WeightsEntry:
    """One published file.

    Attributes:
        sha256: of the file, or its first digits as its publisher gives them; "" where no one publishes it. Then the
            hash of the first download is kept beside the file, and the file is held to that.
        conventions: None if not known.
    """

    uri: str
    url: str
    sha256: str
    conventions: Conventions | None
    licence: str
    paper: str


_TORCHVISION = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _RESNET),
    **dict.fromkeys(("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"), _RESNEXT),
    **dict.fromkeys(("wide_resnet50_2", "wide_resnet101_2"), "arXiv 1605.07146"),
    **dict.fromkeys(("densenet121", "densenet161", "densenet169", "densenet201"), "arXiv 1608.06993"),
}

# Under the path at dl.fbaipublicfiles.com. The licence is that of Detectron2's MODEL_ZOO.md.
_DETECTRON2 = {
    "ImageNetPretrained/MSRA/R-50.pkl": (MSRA, _RESNET),
    "ImageNetPretrained/MSRA/R-101.pkl": (MSRA, _RESNET),
    "ImageNetPretrained/FAIR/X-101-32x8d.pkl": (CAFFE2_RESNEXT, _RESNEXT),
    "ImageNetPretrained/torchvision/R-50.pkl": (TORCHVISION, _RESNET),
}
_DETECTRON2_CATALOG = {
    "ImageNetPretrained/MSRA/R-50": (MSRA, _RESNET),
    "ImageNetPretrained/MSRA/R-101": (MSRA, _RESNET),
    "ImageNetPretrained/FAIR/R-50-GN": (CAFFE2_GN, "arXiv 1803.08494"),
    "ImageNetPretrained/FAIR/R-101-GN": (CAFFE2_GN, "arXiv 1803.08494"),
    "ImageNetPretrained/FAIR/X-101-32x8d": (CAFFE2_RESNEXT_FUSED, _RESNEXT),
    "ImageNetPretrained/FAIR/X-101-64x4d": (CAFFE2_RESNEXT_FUSED, _RESNEXT),
    "ImageNetPretrained/FAIR/X-152-32x8d-IN5k": (CAFFE2_RESNEXT_FUSED, _RESNEXT),
}

# timm's ResNets with its training recipes (arXiv 2110.00476); all under Apache-2.0.
_TIMM_RECIPES = "arXiv 2110.00476"
_TIMM = {
    **dict.fromkeys(
        (
            *("resnet14t.c3_in1k", "resnet18.a1_in1k", "resnet18d.ra2_in1k", "resnet26.bt_in1k", "resnet26d.bt_in1k"),
            *("resnet34.a1_in1k", "resnet34d.ra2_in1k", "resnet50.a1_in1k", "resnet50.ram_in1k", "resnet50d.ra2_in1k"),
            *("resnet101.a1_in1k", "resnet101d.ra2_in1k", "resnet152.a1_in1k", "resnet152d.ra2_in1k"),
            *("resnet200d.ra2_in1k", "resnext50_32x4d.a1h_in1k", "resnext50d_32x4d.bt_in1k", "seresnet50.a1_in1k"),
            *("seresnet50.ra2_in1k", "wide_resnet50_2.racm_in1k", "resnet50_gn.a1h_in1k"),
        ),
        TORCHVISION,
    ),
    "resnetv2_50.a1h_in1k": TIMM_HALF,
}

# Of github.com/akamaster/pytorch_resnet_cifar10, with the first digits of their hashes: the nets of three stages for
# CIFAR-10, trained with ImageNet's mean and deviation.
_CIFAR = {
    "resnet20": "12fca82f",
    "resnet32": "d509ac18",
    "resnet44": "014dd654",
    "resnet56": "4bfd9763",
    "resnet110": "1d1ed7c2",
}


def find_entry(source: str) -> WeightsEntry | None:
    """The entry behind a URI: ``torchvision://resnet50[/IMAGENET1K_V2]``, ``timm://resnet50d.ra2_in1k``,
    ``cifar10://resnet20``, ``detectron2://...``, ``catalog://...`` or ``https://...#sha256=<64 digits>``; None for a
    path.

    Raises:
        InputError: the scheme or name is unknown, or an https address has no hash.
    """
    scheme, separator, name = source.partition("://")
    if not separator or scheme == "file":
        return None
    finders = {
        "torchvision": _find_torchvision,
        "timm": _find_timm,
        "cifar10": _find_cifar,
        "detectron2": _find_detectron2,
        "catalog": _find_detectron2_catalog,
        "https": _find_https,
    }
    if scheme not in finders:
        raise InputError(f"{source}: give a path, or one of {', '.join(f'{known}://' for known in finders)}")
    return finders[scheme](source, name)


def list_entries() -> list[WeightsEntry]:
    """Every entry that has a name here, torchvision's with each of their weights."""
    sources = [
        f"torchvision://{name}/{weights.name}"
        for name in _TORCHVISION
        for weights in torchvision.models.get_model_weights(name)
    ]
    sources += [f"timm://{name}" for name in _TIMM]
    sources += [f"cifar10://{name}" for name in _CIFAR]
    sources += [f"detectron2://{name}" for name in _DETECTRON2]
    sources += [f"catalog://{name}" for name in _DETECTRON2_CATALOG]
    return [find_entry(source) for source in sources]


def _choose(source: str, name: str, table: dict) -> None:
    if name not in table:
        raise InputError(f"{source}: not in the catalogue; choose one of {', '.join(table)}")


def _find_torchvision(source: str, name: str) -> WeightsEntry:
    model, _, version = name.partition("/")
    _choose(source, model, _TORCHVISION)
    known = {weights.name: weights.url for weights in torchvision.models.get_model_weights(model)}
    _choose(source, version or "IMAGENET1K_V1", known)
    url = known[version or "IMAGENET1K_V1"]
    digits = re.search(r"-([0-9a-f]{8})\.pth$", url)[1]
    conventions = TORCHVISION_DENSENET if model.startswith("densenet") else TORCHVISION
    return WeightsEntry(source, url, digits, conventions, "BSD-3-Clause", _TORCHVISION[model])


def _find_timm(source: str, name: str) -> WeightsEntry:
    _choose(source, name, _TIMM)
    url = f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
    return WeightsEntry(source, url, "", _TIMM[name], "Apache-2.0", _TIMM_RECIPES)


def _find_cifar(source: str, name: str) -> WeightsEntry:
    _choose(source, name, _CIFAR)
    folder = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
    url = f"{folder}/{name}-{_CIFAR[name]}.th"
    return WeightsEntry(source, url, _CIFAR[name], TORCHVISION, "BSD-2-Clause", _RESNET)


def _find_detectron2(source: str, name: str) -> WeightsEntry:
    """Any file at Detectron2's address: its model zoo has detectors beside the backbones that are listed here."""
    conventions, paper = _DETECTRON2.get(name, (None, ""))
    return WeightsEntry(
        source, f"https://dl.fbaipublicfiles.com/detectron2/{name}", "", conventions, "CC BY-SA 3.0", paper
    )


def _find_detectron2_catalog(source: str, name: str) -> WeightsEntry:
    _choose(source, name, _DETECTRON2_CATALOG)
    conventions, paper = _DETECTRON2_CATALOG[name]
    return WeightsEntry(source, ModelCatalog.get(name), "", conventions, "CC BY-SA 3.0", paper)


def _find_https(source: str, name: str) -> WeightsEntry:
    address, _, digits = name.partition("#sha256=")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise InputError(f"{source}: give the file's hash with the address: https://...#sha256=<64 hexadecimal digits>")
    return WeightsEntry(source, f"https://{address}", digits, None, "", "")
