"""What a source of weights expects of its input, by the catalogue or by the names of its tensors."""

from __future__ import annotations

from pathlib import Path

from resnet_det.errors import InputError
from resnet_det.weights.catalog import TORCHVISION, Conventions, find_entry
from resnet_det.weights.names import find_trunk
from resnet_det.weights.readers import read_tensors
from resnet_det.weights.sources import fetch_weights


def find_conventions(source: str | Path) -> Conventions | None:
    """What the weights at ``source`` were trained with; None if that is not known.

    A file of one's own is known by its names: a net in torchvision's, numbered or not, or in Hugging Face's has
    torchvision's conventions (DenseNets, too), and so have the nets of three stages for CIFAR. Other names tell
    nothing: both MSRA's and converted torchvision weights have Detectron2's, and nets of four stages whose head is
    called linear are trained on CIFAR with pixels of any kind.

    Raises:
        InputError: the file cannot be read.
    """
    entry = find_entry(str(source))
    if entry is not None and entry.conventions is not None:
        return entry.conventions
    tensors = read_tensors(fetch_weights(source))
    try:
        kind, prefix = find_trunk(tensors)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if kind == "torch" and {f"{prefix}linear.weight", f"{prefix}layer4.0.conv1.weight"} <= tensors.keys():
        return None
    return TORCHVISION if kind in ("torch", "huggingface", "sequential", "densenet") else None
