"""Bring weights from one naming and file format to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from resnet_det.errors import InputError
from resnet_det.outputs import check_new_file
from resnet_det.weights.describe import describe_shapes
from resnet_det.weights.names import find_trunk, from_detectron2_names, naming_of, to_detectron2_names
from resnet_det.weights.readers import keep_what_has_room, read_checkpoint, read_tensors, write_tensors
from resnet_det.weights.sources import fetch_weights


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        model: the ResNet, such as "ResNet-50".
        source_naming, naming: of the file read and of the one written.
        written: names of the tensors written.
        left_out: names of tensors that the new file has no name or room for, and of other content.
    """

    model: str
    source_naming: str
    naming: str
    written: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.model}: {len(self.written)} tensors, {self.source_naming} to {self.naming} names, verified"
        if self.left_out:
            text += f"; left out: {', '.join(self.left_out[:5])}" + (", ..." if len(self.left_out) > 5 else "")
        return text


def convert_weights(
    source: str | Path,
    destination: str | Path,
    *,
    naming: str = "detectron2",
    avg_down: bool | None = None,
    strip: bool = False,
) -> ConversionReport:
    """Write the weights at ``source`` to ``destination``, whose suffix is the format, and verify what was written.

    A detector's heads go along only if the naming stays Detectron2's: the others have no names for them.

    Args:
        source: a path or URI (see :func:`fetch_weights`).
        naming: of the new file: detectron2, torchvision, timm or caffe2.
        avg_down: see :func:`from_detectron2_names`.
        strip: leave out what is not weights, such as an optimizer's state.

    Raises:
        InputError: the file cannot be read, the naming has no name for a part of the net, the format has no room for
            what stands beside the weights, or ``destination`` is the file that is read.
    """
    path, destination = fetch_weights(source), Path(destination)
    if destination.exists() and destination.samefile(path):
        raise InputError(f"{destination}: the new file would replace the one that is read")
    check_new_file(destination, flag="DST")
    tensors, extra = read_checkpoint(path)
    trunk = to_detectron2_names(tensors)
    if naming == "detectron2" and find_trunk(tensors)[0] == "detectron2":
        names = {key: key for key in tensors}
    else:
        new = from_detectron2_names(list(trunk.values()), naming, avg_down=avg_down)
        names = {key: new[name] for key, name in trunk.items() if name in new}
    kept = keep_what_has_room(extra, destination, strip=strip)
    converted = {new: tensors[key] for key, new in names.items()}
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(converted, destination, extra=kept)
    _verify(destination, converted, naming)
    left_out = [key for key in tensors if key not in names] + [key for key in extra if key not in kept]
    return ConversionReport(
        model=describe_shapes({name: tuple(tensors[key].shape) for key, name in trunk.items()}),
        source_naming=naming_of(tensors),
        naming=naming,
        written=tuple(converted),
        left_out=tuple(left_out),
    )


def _verify(path: Path, expected: dict[str, torch.Tensor], naming: str) -> None:
    """Read the file again: every tensor must be there, the same to the bit, and under names that are recognised."""
    read = read_tensors(path)
    wrong = [name for name in expected if name not in read or not torch.equal(read[name], expected[name])]
    if wrong or len(read) != len(expected):
        raise RuntimeError(f"{path}: what was written is not what was meant: {wrong[:3]}")
    if naming not in (naming_of(read), "timm"):  # a plain ResNet of timm is named as torchvision's
        raise RuntimeError(f"{path}: written in {naming} names, read as {naming_of(read)}")
