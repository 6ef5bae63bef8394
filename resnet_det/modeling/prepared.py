"""What makes a prepared model a model: it can be called part by part, copied, pickled, moved, and loaded into.

Nothing of that is put into an instance, where a copy would go on calling the original: modules get classes of their own
(derived from those they had), and hooks that are functions of this file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler
from torch import nn

from resnet_det.modeling.fast_poolers import FastROIAlign
from resnet_det.modeling.fused import is_captured

# The ways in which Detectron2 calls models and heads.
_ENTRIES = ("forward", "inference", "forward_with_given_boxes")


class PreparedPart(nn.Module):
    """A part that runs under autocast to ``prepared_dtype``, however it is called and in whatever thread.

    Attributes:
        plain_class: what the class was before.
    """

    plain_class: type[nn.Module]
    prepared_dtype: torch.dtype

    def enter_precision(self) -> AbstractContextManager:
        device_type = next((parameter.device.type for parameter in self.parameters()), "cpu")  # OpenVINO's have none
        if self.prepared_dtype == torch.float32 or not torch.amp.is_autocast_available(device_type):
            return nullcontext()
        return torch.autocast(device_type, self.prepared_dtype, cache_enabled=False)

    def __reduce_ex__(self, protocol: int) -> tuple:
        _, _, *state = super().__reduce_ex__(max(int(protocol), 2))
        return _make_empty, (type(self).__mro__[1], self.plain_class), *state


class PreparedModel(PreparedPart):
    """The whole model."""

    def train(self, mode: bool = True) -> nn.Module:  # noqa: ARG002 - nn.Module's
        """It stays in evaluation mode, as it cannot be trained; a module around it may be switched."""
        return super().train(False)


class Float32Part(PreparedPart):
    """A part of a model in fewer bits that is cheap and runs in float32, as its results depend on it."""

    def enter_precision(self) -> AbstractContextManager:
        return torch.autocast(next(self.parameters()).device.type, enabled=False)


def change_class_(module: nn.Module, kind: type[PreparedPart], dtype: torch.dtype) -> None:
    """Let ``module`` be of its class and of ``kind``."""
    module.__class__ = _make_class(kind, type(module))
    module.prepared_dtype = dtype


@functools.cache
def _make_class(kind: type[PreparedPart], base: type[nn.Module]) -> type[nn.Module]:
    entries = {name: _with_precision(getattr(base, name)) for name in _ENTRIES if hasattr(base, name)}
    members = {"__module__": __name__, "__doc__": base.__doc__, "plain_class": base, **entries}
    return type(f"Prepared{base.__name__}", (kind, base), members)


def _make_empty(kind: type[PreparedPart], base: type[nn.Module]) -> nn.Module:
    """What pickle fills: classes made at run time have no name that it could look up."""
    made = _make_class(kind, base)
    return made.__new__(made)


def _with_precision(method: Callable) -> Callable:
    @functools.wraps(method)
    def run(self: PreparedPart, *args: Any, **kwargs: Any) -> Any:
        with self.enter_precision():
            if isinstance(self, Float32Part):
                args = [value.float() if _is_floating(value) else value for value in args]
            return method(self, *args, **kwargs)

    return run


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def cast_input_(layer: nn.Module) -> None:
    """Let ``layer`` take features of any type, where a part around it is called without autocast."""
    layer.register_forward_pre_hook(_cast_input)


def _cast_input(layer: nn.Module, args: tuple) -> tuple:
    return tuple(value.to(layer.weight.dtype) if isinstance(value, torch.Tensor) else value for value in args)


def pool_in_float32_(pooler: ROIPooler) -> None:
    """Let ``pooler`` pool features in float32 where its operator has no other type, or would round boxes to it."""
    pooler.register_forward_pre_hook(_pool_in_float32, with_kwargs=True)


def _pool_in_float32(pooler: ROIPooler, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
    features = args[0] if args else kwargs.get("x")
    is_on_cpu = all(feature.device.type == "cpu" for feature in features)
    if is_on_cpu and not is_captured() and all(type(level) is FastROIAlign for level in pooler.level_poolers):
        return None
    features = [feature.float() for feature in features]
    return ((features, *args[1:]), kwargs) if args else (args, {**kwargs, "x": features})


def refuse_other_states_(module: nn.Module) -> None:
    """Let ``module``, whose convolutions are not those of the model any more, load the states of such modules alone."""
    # Public from torch 2.5 on, under another name.
    module._register_load_state_dict_pre_hook(_refuse_other_state, with_module=True)


def _refuse_other_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    given = {name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    own = module.state_dict().keys()
    if given == own:
        return
    unknown, missing = sorted(given - own), sorted(own - given)
    what = f"{prefix}{unknown[0]} is unknown" if unknown else f"{prefix}{missing[0]} is missing"
    raise RuntimeError(
        f"this is not the state of a prepared model like this one, whose convolutions have been changed ({what}; "
        f"{len(unknown)} unknown, {len(missing)} missing): load it into the model that this one was made of, and "
        "prepare that again"
    )
