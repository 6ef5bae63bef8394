"""Submodules as a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


class ModuleView(Sequence):
    """The submodules ``names`` of ``parent`` as a list whose items can be set.

    There is no second list beside the submodules: what is set here is the submodule, and what replaces a submodule is
    found here.
    """

    def __init__(self, parent: nn.Module, names: Sequence[str]) -> None:
        self._parent, self._names = parent, tuple(names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [getattr(self._parent, name) for name in self._names[index]]
        return getattr(self._parent, self._names[index])

    def __setitem__(self, index: int, module: nn.Module) -> None:
        setattr(self._parent, self._names[index], module)


def list_of_modules(find_names: Callable[[Any], Sequence[str]], doc: str) -> property:
    """A property that is a :class:`ModuleView` of the submodules that ``find_names(parent)`` names.

    Raises:
        ValueError: it is set to a list of another length.
    """

    def replace(parent: nn.Module, modules: Sequence[nn.Module]) -> None:
        for name, module in zip(find_names(parent), modules, strict=True):
            setattr(parent, name, module)

    return property(lambda parent: ModuleView(parent, find_names(parent)), replace, doc=doc)
