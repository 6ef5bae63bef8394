"""Submodules as a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


class ModuleView(list):
    """The submodules ``names`` of ``parent``, as a list of fixed length whose items can be set.

    What is set here becomes the submodule.
    """

    def __init__(self, parent: nn.Module, names: Sequence[str]) -> None:
        super().__init__(getattr(parent, name) for name in names)
        self._parent, self._names = parent, tuple(names)

    def __setitem__(self, index: int | slice, value: Any) -> None:
        names = self._names[index]
        for name, module in zip(names, value, strict=True) if isinstance(index, slice) else [(names, value)]:
            setattr(self._parent, name, module)
        super().__setitem__(index, value)

    def _refuse(self, *_: object) -> None:
        raise TypeError("this list shows submodules and has a fixed length: set its items, or edit the parent module")

    append = extend = insert = remove = pop = clear = sort = reverse = __delitem__ = __iadd__ = __imul__ = _refuse


class ModuleLists(nn.Module):
    """A module with properties made by :func:`list_of_modules`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)  # before nn.Module would make a ModuleList a submodule of that name
        else:
            super().__setattr__(name, value)


def list_of_modules(find_names: Callable[[Any], Sequence[str]], doc: str) -> property:
    """A property that is a :class:`ModuleView` of the submodules that ``find_names(parent)`` names.

    Raises:
        ValueError: it is set to a list of another length.
    """

    def replace(parent: nn.Module, modules: Sequence[nn.Module]) -> None:
        ModuleView(parent, find_names(parent))[:] = modules

    return property(lambda parent: ModuleView(parent, find_names(parent)), replace, doc=doc)
