"""What a source of weights expects of its input: by the catalogue, by what the file says, or by its tensors' names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError
from resnet_det.weights.catalog import TORCHVISION, Conventions, find_entry
from resnet_det.weights.names import find_trunk
from resnet_det.weights.readers import TRAINED_WITH, read_checkpoint
from resnet_det.weights.sources import fetch_weights


def find_conventions(source: str | Path) -> Conventions | None:
    """What the weights at ``source`` were trained with; None if that is not known.

    A file that tools/train_classifier.py has written says it. Another one of one's own is known by its names: a net in
    torchvision's, numbered or not, or in Hugging Face's has torchvision's conventions, and so have the nets of three
    stages for CIFAR. Other names tell nothing: both MSRA's and converted torchvision weights have Detectron2's, and
    nets of four stages whose head is called linear are trained on CIFAR with pixels of any kind.

    Raises:
        InputError: the file cannot be read.
    """
    entry = find_entry(str(source))
    if entry is not None and entry.conventions is not None:
        return entry.conventions
    tensors, extra = read_checkpoint(fetch_weights(source))
    if TRAINED_WITH in extra:
        return _from_json(source, extra[TRAINED_WITH])
    try:
        kind, prefix = find_trunk(tensors)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if kind == "torch" and {f"{prefix}linear.weight", f"{prefix}layer4.0.conv1.weight"} <= tensors.keys():
        return None
    return TORCHVISION if kind in ("torch", "huggingface", "sequential") else None


def to_json(conventions: Conventions) -> str:
    """What stands under ``TRAINED_WITH`` in a file of weights."""
    return json.dumps(dataclasses.asdict(conventions))


def _from_json(source: str | Path, text: Any) -> Conventions:
    try:
        found = json.loads(text)
        mean, std = (tuple(float(value) for value in found[key]) for key in ("pixel_mean", "pixel_std"))
        return Conventions(str(found["channel_order"]), mean, std, stride_in_1x1=bool(found["stride_in_1x1"]))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{source}: what it says of its pixels ({TRAINED_WITH}) cannot be read: {error!r}") from None
