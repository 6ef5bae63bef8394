"""What a source of weights expects of its input: by the catalogue, by what the file says, or by its tensors' names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from resnet_det.densenet_specs import DenseNetSpec
from resnet_det.errors import InputError
from resnet_det.specs import ResNetSpec
from resnet_det.weights.catalog import TORCHVISION, TORCHVISION_DENSENET, Conventions, find_entry
from resnet_det.weights.names import find_trunk
from resnet_det.weights.readers import TRAINED_WITH, read_checkpoint
from resnet_det.weights.sources import fetch_weights

# These compute the same, once trained.
_BATCH_NORMS = ("BN", "FrozenBN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def find_conventions(source: str | Path) -> Conventions | None:
    """What the weights at ``source`` were trained with; None if that is not known.

    A file that tools/train_classifier.py has written says it. Another one of one's own is known by its names: a net in
    torchvision's, numbered or not, or in Hugging Face's has torchvision's conventions (DenseNets, too), and so have the
    nets of three stages for CIFAR. Other names tell nothing: both MSRA's and converted torchvision weights have
    Detectron2's, and nets of four stages whose head is called linear are trained on CIFAR with pixels of any kind.

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
    if kind == "densenet":
        return TORCHVISION_DENSENET
    return TORCHVISION if kind in ("torch", "huggingface", "sequential") else None


def describe_net(spec: ResNetSpec | DenseNetSpec) -> dict[str, Any]:
    """What decides how a net computes and neither names nor shapes of its tensors tell, or not those that it lacks: in
    values that JSON keeps. Where bottlenecks stride is a convention of its own (``Conventions.stride_in_1x1``).

    What acts in training alone (initial zeros, stochastic depth, freezing, checkpointing) is not among it.
    """
    norm = "BN" if spec.norm in _BATCH_NORMS else spec.norm
    known = {} if callable(norm) else {"norm": norm}
    if isinstance(spec, DenseNetSpec):
        return known
    deform = [spec.deform.modulated, spec.deform.num_groups]
    return known | {
        "stem": spec.stem,
        "shortcut": spec.shortcut,
        "preact": spec.preact,
        "squeeze_excitation": spec.se_reduction > 0,
        "deform": {stage: deform for stage, has in zip(spec.stage_names, spec.deform_stages, strict=True) if has},
        "dilations": {stage: [block.dilation for block in spec.blocks_of(stage)] for stage in spec.stage_names},
    }


def describe_stride(spec: ResNetSpec | DenseNetSpec) -> dict[str, bool]:
    """Where bottlenecks stride; empty for a net that has none."""
    has_choice = isinstance(spec, ResNetSpec) and spec.block == "bottleneck"
    return {"stride_in_1x1": spec.stride_in_1x1} if has_choice else {}


def to_json(conventions: Conventions) -> str:
    """What stands under ``TRAINED_WITH`` in a file of weights."""
    return json.dumps(dataclasses.asdict(conventions))


def _from_json(source: str | Path, text: Any) -> Conventions:
    try:
        found = json.loads(text)
        mean, std = (tuple(float(value) for value in found[key]) for key in ("pixel_mean", "pixel_std"))
        stride = found["stride_in_1x1"]
        stride_in_1x1 = None if stride is None else bool(stride)
        return Conventions(str(found["channel_order"]), mean, std, stride_in_1x1, dict(found.get("net", {})))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{source}: what it says of its training ({TRAINED_WITH}) cannot be read: {error!r}") from None
