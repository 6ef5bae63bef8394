"""Load weights into a model, and account for every tensor of the backbone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from resnet_det.errors import InputError
from resnet_det.specs import ResNetSpec
from resnet_det.weights.describe import describe_shapes, describe_spec
from resnet_det.weights.names import naming_of, to_detectron2_names
from resnet_det.weights.readers import read_tensors
from resnet_det.weights.sources import fetch_weights

_STEM = "stem.conv1.weight"
_TRUNK = re.compile(r"(stem|res\d+|final_norm)\.")
_COUNTER = "num_batches_tracked"  # no part of the function of a norm, and FrozenBN has none


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor.

    Attributes:
        source: the path or URI that was loaded.
        naming: whose names it has: detectron2, torchvision, timm, caffe2, huggingface, or sequential (numbered).
        file_model, model: the ResNet in the file and that of the model, such as "ResNet-50".
        matched, missing, unexpected: names, in the model's naming, of tensors that were loaded, that the model has and
            the file has not, and the reverse.
        wrong_shape: names with the shapes in the file and in the model; these were not loaded.
        notes: what was changed on the way.
        backbone_names: names of the model's tensors that belong to its backbone.
    """

    source: str
    naming: str
    file_model: str
    model: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    notes: tuple[str, ...] = ()
    backbone_names: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def backbone_problems(self) -> list[str]:
        """The backbone's tensors that were not loaded, each with what is wrong."""
        problems = [f"{name} is missing" for name in self.missing if name in self.backbone_names]
        for name, in_file, in_model in self.wrong_shape:
            if name in self.backbone_names:
                problems.append(f"{name} is {_shape(in_file)} in the file, {_shape(in_model)} in the model")
        return problems

    def __str__(self) -> str:
        """A table of counts by part of the model, and the notes."""
        columns = {
            "loaded": self.matched,
            "missing": self.missing,
            "wrong shape": [name for name, *_ in self.wrong_shape],
            "not used": self.unexpected,
        }
        counts = {
            title: Counter(_part_of(name, self.backbone_names) for name in names) for title, names in columns.items()
        }
        parts = sorted({part for counter in counts.values() for part in counter}, key=_part_order)
        width = max(len(part) for part in (*parts, "part"))
        lines = [f"{self.source}: {self.file_model}, {self.naming} names"]
        lines.append("  ".join([f"{'part':{width}}", *(f"{title:>11}" for title in columns)]))
        for part in parts:
            cells = [f"{counts[title][part] or '-':>11}" for title in columns]
            lines.append("  ".join([f"{part:{width}}", *cells]))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def load_weights(
    model: nn.Module, source: str | Path, *, strict: bool = True, adapt_channels: bool = True
) -> LoadReport:
    """Load a ResNet, or a whole detector, into ``model`` in place.

    Args:
        model: a ResNet or a detector with one.
        source: a path or URI (see :func:`fetch_weights`) to weights in Detectron2's, torchvision's, timm's, Caffe2's or
            Hugging Face's naming, which is recognised.
        strict: every tensor of the backbone must be there, in its shape. Heads may differ, as in fine-tuning.
        adapt_channels: whether the first convolution may be changed to another number of input channels, to train from.

    Raises:
        InputError: the file cannot be read, or with ``strict`` does not fit. The model is then as it was.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    tensors = read_tensors(fetch_weights(source))
    state = model.state_dict()
    backbone = _find_backbone(model, state)
    try:
        placed, unexpected = _place(tensors, backbone, state)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    notes = _adapt(placed, backbone, model, adapt_channels=adapt_channels)
    wrong_shape = tuple(
        (name, tuple(tensor.shape), tuple(state[name].shape))
        for name, tensor in placed.items()
        if tensor.shape != state[name].shape
    )
    wrong = {name for name, *_ in wrong_shape}
    report = LoadReport(
        source=str(source),
        naming=naming_of(tensors),
        file_model=describe_shapes(_trunk_shapes(tensors)),
        model=describe_spec(backbone.spec) if backbone.spec else describe_shapes(backbone.shapes),
        matched=tuple(name for name in placed if name not in wrong),
        missing=tuple(name for name in state if name not in placed and not name.endswith(_COUNTER)),
        unexpected=tuple(name for name in unexpected if not name.endswith(_COUNTER)),
        wrong_shape=wrong_shape,
        notes=tuple(notes),
        backbone_names=frozenset(backbone.names),
    )
    if strict and report.backbone_problems:
        raise InputError(_explain_misfit(report))
    with torch.no_grad():
        for name in report.matched:
            state[name].copy_(placed[name])
    return report


@dataclass(frozen=True)
class _Backbone:
    """The ResNet in a model: the prefix of its names, its tensors' names in full, their shapes by name without the
    prefix, and the spec that it was made of, if it was."""

    prefix: str
    names: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    spec: ResNetSpec | None


def _find_backbone(model: nn.Module, state: dict[str, torch.Tensor]) -> _Backbone:
    stem = next((name for name in state if name.endswith(_STEM) and _is_prefix(name.removesuffix(_STEM))), None)
    if stem is None:
        raise InputError(f"load_weights: the {type(model).__name__} has no ResNet, as it has no {_STEM}")
    prefix = stem.removesuffix(_STEM)
    names = [name for name in state if name.startswith(prefix) and _TRUNK.match(name.removeprefix(prefix))]
    # Detectron2's C4 detectors keep res5 in their heads.
    names += [name for name in state if name.startswith("roi_heads.res5.")]
    spec = getattr(model.get_submodule(prefix.rstrip(".")), "spec", None)
    names = tuple(name for name in names if not name.endswith(_COUNTER))
    shapes = {name.removeprefix(prefix).removeprefix("roi_heads."): tuple(state[name].shape) for name in names}
    return _Backbone(prefix, names, shapes, spec)


def _is_prefix(text: str) -> bool:
    return text == "" or text.endswith(".")


def _place(
    tensors: dict[str, torch.Tensor], backbone: _Backbone, state: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The file's tensors under the model's names, and the names for which the model has no place."""
    trunk = to_detectron2_names(tensors)
    placed, unexpected = {}, []
    for key, tensor in tensors.items():
        name = backbone.prefix + trunk[key] if key in trunk else key
        if name not in state and key in trunk and f"roi_heads.{trunk[key]}" in state:
            name = f"roi_heads.{trunk[key]}"
        if name not in state:
            unexpected.append(name)
        elif key in trunk and trunk[key] == "linear.weight":
            placed[name] = tensor.flatten(1)  # timm's ResNetV2 classifies by a 1x1 convolution
        else:
            placed[name] = tensor
    return placed, unexpected


def _adapt(
    placed: dict[str, torch.Tensor], backbone: _Backbone, model: nn.Module, *, adapt_channels: bool
) -> list[str]:
    """Change, in place, what can be changed without guessing: number formats, input channels, merged norms."""
    notes = []
    half = {str(tensor.dtype).removeprefix("torch.") for tensor in placed.values() if tensor.element_size() == 2}
    if half - {"int16"}:
        notes.append(f"numbers in {', '.join(sorted(half))} were cast to those of the model")
    stem = backbone.prefix + _STEM
    if stem in placed and adapt_channels:
        wanted = model.get_parameter(stem).shape[1]
        if placed[stem].shape[1] != wanted:
            notes.append(f"stem: {placed[stem].shape[1]} input channels were adapted to {wanted}")
            placed[stem] = adapt_input_channels(placed[stem], wanted)
    merged = _add_merged_statistics(placed, backbone, model)
    if merged:
        notes.append(f"{merged} norms came merged into a scale and a shift, without statistics")
    return notes


def adapt_input_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The first convolution for images of another number of channels.

    For one channel the weights are summed, which gives a grey image the answer that the same image in colour had. For
    others the channels are repeated in turn and rescaled, so that the size of the output stays.

    Shapes:
        weight: (out, in, k, k) to (out, channels, k, k).
    """
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    index = torch.arange(channels) % weight.shape[1]
    return weight[:, index] * (weight.shape[1] / channels)


def _add_merged_statistics(placed: dict[str, torch.Tensor], backbone: _Backbone, model: nn.Module) -> int:
    """Caffe2's files have norms as a scale and a shift: a FrozenBN with mean 0 and variance 1 is that."""
    if any(name.endswith("running_mean") for name in placed):
        return 0
    count = 0
    for name in backbone.names:
        if name.endswith("norm.weight") and name in placed:
            norm_name = name.removesuffix(".weight")
            norm = model.get_submodule(norm_name)
            if isinstance(norm, FrozenBatchNorm2d):
                placed[f"{norm_name}.running_mean"] = torch.zeros_like(placed[name])
                placed[f"{norm_name}.running_var"] = torch.ones_like(placed[name]) - norm.eps
                count += 1
    return count


def _trunk_shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensors[key].shape) for key, name in to_detectron2_names(tensors).items()}


def _explain_misfit(report: LoadReport) -> str:
    problems = report.backbone_problems
    lines = [f"{report.source}: {len(problems)} of {len(report.backbone_names)} tensors of the backbone do not fit"]
    if report.file_model != report.model:
        wanted = report.model
        if report.file_model.startswith("ResNet-"):
            wanted = wanted.removeprefix("ResNet-")
        lines[0] = f"{report.source}: this file is a {report.file_model}, the config says {wanted}"
    elif any("running_mean is missing" in problem for problem in problems):
        lines.append("its norms have no running statistics: set MODEL.RESNETS.NORM to FrozenBN, or GN if that is it")
    return "\n  ".join([*lines, *problems[:4], *(["..."] if len(problems) > 4 else [])])


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _part_of(name: str, backbone_names: frozenset[str]) -> str:
    found = re.search(r"(stem|res\d+|final_norm|linear)\.", name)
    if name in backbone_names and found:
        return found[1]
    return found[1] if found and "." not in name[: found.start()] else name.partition(".")[0]


def _part_order(part: str) -> tuple[int, str]:
    order = ["stem", "res", "final_norm", "linear", "backbone"]
    kind = part.rstrip("0123456789")
    return (order.index(kind) if kind in order else len(order), part)
