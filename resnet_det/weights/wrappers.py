"""Where the weights stand in what a training program has saved: in one or more dicts, lists or whole models."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_det.errors import InputError
from resnet_det.pickles import PassedOver
from resnet_det.weights.names import has_trunk

logger = logging.getLogger(__name__)

# Under which weights stand, most wanted first: what a program goes on training before its averages, as Detectron2 does;
# of a student and its teacher the teacher, which is what is evaluated (DINO).
_WANTED = (
    *("model", "state_dict", "model_state", "model_state_dict", "net", "network", "weights", "params", "blobs"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher", "target", "student", "online"),
)
_OTHER_STATE = (
    "optim",
    "lr_sched",
    "scheduler",
    "scaler",
    "callbacks",
    "loops",
    "rng",
    "amp",
    "message_hub",
    "history",
)
_MAX_DEPTH = 8
_MAX_NAMED = 5


@dataclass(frozen=True)
class _Found:
    """Tensors that stand together, and the keys that lead there."""

    path: tuple[str, ...]
    tensors: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        return ".".join(self.path) or "the file itself"

    @property
    def rank(self) -> int:
        """Place in ``_WANTED`` of the innermost key that is in it."""
        places = [_WANTED.index(key) for key in self.path if key in _WANTED]
        return places[-1] if places else len(_WANTED)


def find_tensors(content: Any, path: Path, passed_over: set[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of what was read of ``path``, whatever they are wrapped in, and what stands beside them.

    Of several groups of tensors, one that has a ResNet's names is preferred; then the names of the wrapping tell, then
    the number of tensors.

    Args:
        passed_over: what of the file was not read, for the error.

    Raises:
        InputError: there are none.
    """
    groups = list(_walk(content, ()))
    if not groups:
        raise InputError(f"{path}: {_explain_none(content, passed_over)}")
    best = min(groups, key=lambda group: (not has_trunk(group.tensors), group.rank, -len(group.tensors)))
    others = [group.name for group in groups if group is not best and len(group.tensors) > len(best.tensors) / 2]
    if others:
        logger.info("%s: taken are the weights under %s; not used: %s", path, best.name, ", ".join(others))
    return best.tensors, _collect_rest(content, best.path)


def _walk(content: Any, path: tuple[str, ...]) -> Iterator[_Found]:
    """All groups of tensors in ``content``, outermost first."""
    if len(path) > _MAX_DEPTH or (path and path[-1].lower().startswith(_OTHER_STATE)):
        return
    if isinstance(content, PassedOver):
        tensors = dict(_module_tensors(content, ""))
        if tensors:
            yield _Found(path, tensors)
        return
    if isinstance(content, list | tuple):
        content = {str(number): value for number, value in enumerate(content) if isinstance(value, dict | PassedOver)}
    if not isinstance(content, Mapping):
        return
    tensors = {}
    for key, value in content.items():
        tensor = _as_tensor(value)
        if tensor is not None and isinstance(key, str):
            tensors[key] = tensor
    if tensors:
        yield _Found(path, tensors)
    for key, value in content.items():
        if isinstance(value, Mapping | list | tuple | PassedOver) and isinstance(key, str):
            yield from _walk(value, (*path, key))


def _as_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value))
    return value if isinstance(value, torch.Tensor) else None


def _module_tensors(module: PassedOver, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of a model that was saved whole, by the attributes that torch.nn.Module keeps it in."""
    state = module.state
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), Mapping):
        return
    unsaved = state.get("_non_persistent_buffers_set") or ()
    for kept in ("_parameters", "_buffers"):
        for name, value in (state.get(kept) or {}).items():
            if isinstance(value, torch.Tensor) and name not in unsaved:
                yield prefix + name, value
    for name, inner in state["_modules"].items():
        if isinstance(inner, PassedOver):
            yield from _module_tensors(inner, f"{prefix}{name}.")


def _collect_rest(content: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """What stands beside the way to the tensors."""
    rest: dict[str, Any] = {}
    for key in path:
        if not isinstance(content, Mapping):
            break
        rest |= {name: value for name, value in content.items() if name != key}
        content = content[key]
    return rest


def _explain_none(content: Any, passed_over: set[str]) -> str:
    names = ", ".join(map(str, list(content)[:_MAX_NAMED])) if isinstance(content, Mapping) and content else ""
    held = f"it holds {names}" if names else f"it holds a {type(content).__name__}"
    if isinstance(content, PassedOver):
        held = f"it holds an object of {content.name}"
    elif passed_over:
        held += f", and objects that are passed over ({', '.join(sorted(passed_over)[:_MAX_NAMED])})"
    return f"there are no tensors in it: {held}"


def without_passed_over(value: Any) -> Any:
    """The same without the stand-ins of what was passed over."""
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if not isinstance(inner, PassedOver)}
        return {key: without_passed_over(inner) for key, inner in kept.items() if not isinstance(key, PassedOver)}
    if type(value) in (list, tuple):
        return type(value)(without_passed_over(inner) for inner in value if not isinstance(inner, PassedOver))
    return value
