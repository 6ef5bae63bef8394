"""Weights for models whose backbone is not ours, by Detectron2's rules for names; nothing in a file is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from resnet_det.errors import InputError
from resnet_det.weights import read_checkpoint


def load_into_any_model(model: nn.Module, source: str) -> list[str]:
    """Load ``source`` as Detectron2's checkpointer does.

    Returns:
        Names of the model's tensors that are not in it, or have another shape there.

    Raises:
        InputError: there is no such file, it cannot be read, or it asks to run something.
    """
    checkpointer = _SafeCheckpointer(model)
    try:
        path = PathManager.get_local_path(source.partition("?")[0])
    except OSError as error:
        raise InputError(f"MODEL.WEIGHTS {source}: {error}") from None
    if not Path(path).is_file():
        raise InputError(f"MODEL.WEIGHTS {source}: no such file")
    checkpointer.load(source)
    return checkpointer.lacking


class _SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's, but files are read as arrays in plain containers."""

    lacking: list[str]

    def _load_file(self, filename: str) -> dict[str, Any]:
        tensors, extra = read_checkpoint(filename)
        content: dict[str, Any] = {"model": tensors}
        content |= {key: extra[key] for key in ("__author__", "matching_heuristics") if key in extra}
        if filename.endswith(".pkl") and "__author__" not in extra:  # Caffe2's and Detectron's
            kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("_momentum")}
            content = {"model": kept, "__author__": "Caffe2", "matching_heuristics": True}
        elif filename.endswith(".pyth"):  # pycls's
            kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
            content = {"model": kept, "__author__": "pycls", "matching_heuristics": True}
        url = getattr(self, "_parsed_url_during_load", None)  # v0.5 has none
        if url is not None and parse_qs(url.query).get("matching_heuristics") == ["True"]:
            content["matching_heuristics"] = True
        return content

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        self.lacking = [*incompatible.missing_keys, *(name for name, *_ in incompatible.incorrect_shapes)]
        return incompatible
