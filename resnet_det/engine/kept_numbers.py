"""Numbers that modules keep to themselves, outside their parameters and buffers.

RetinaNet and FCOS divide their losses by a running mean of the number of objects, which is a plain attribute: it is
part of the state of a run, but of no ``state_dict``. Whatever number a module of any kind changes while it trains is
treated so here, and no module is named: Python's numbers and flags, and tensors, not what is in containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Numbers = dict[tuple[str, str], Any]


def read_numbers(model: nn.Module) -> Numbers:
    """Every number, and every tensor that is neither parameter nor buffer, by module and attribute."""
    return {
        (name, key): value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if (type(value) in (int, float, bool) and key != "training") or isinstance(value, torch.Tensor)
    }


def write_numbers(model: nn.Module, numbers: Numbers) -> None:
    """Let the modules have ``numbers``, and none besides."""
    modules = dict(model.named_modules())
    for name, key in read_numbers(model):
        if (name, key) not in numbers:
            delattr(modules[name], key)
    for (name, key), value in numbers.items():
        current = vars(modules[name]).get(key)
        if isinstance(current, torch.Tensor) and isinstance(value, torch.Tensor):
            setattr(modules[name], key, value.to(current.device, copy=True))
        elif _differ(current, value):
            setattr(modules[name], key, value)


def find_changes(before: Numbers, after: Numbers) -> Numbers:
    """Those of ``after`` that are not the same in ``before``."""
    return {place: value for place, value in after.items() if place not in before or _differ(before[place], value)}


def average_numbers(all_numbers: list[Numbers]) -> Numbers:
    """The mean of each number; what some lack is as the last has it."""
    averaged = dict(all_numbers[-1])
    for place, last in averaged.items():
        values = [numbers.get(place) for numbers in all_numbers]
        if isinstance(last, bool) or any(value is None for value in values):
            continue
        if not any(_differ(value, last) for value in values):
            continue
        total = sum(values)
        averaged[place] = total / len(values) if not isinstance(last, int) else total // len(values)
    return averaged


@contextmanager
def numbers_kept(model: nn.Module) -> Iterator[None]:
    """Whatever is done meanwhile, ``model`` has the numbers afterwards that it had before."""
    before = read_numbers(model)
    try:
        yield
    finally:
        write_numbers(model, before)


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other))
    return type(one) is not type(other) or one != other
