"""Read pickled arrays without running anything that is in the file: the one unpickler of this package.

What a pickle asks for is looked up in a table of arrays and plain containers. Of the rest, objects that somebody's
program keeps beside its arrays (its arguments, its config) may be passed over: a stand-in takes their place, and
nothing of them is imported or called. What could run something has no place beside arrays, and is refused by name.
"""

from __future__ import annotations

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from resnet_det.errors import InputError

# What of Python, NumPy and torch holds values alone. Whatever else these three have may run something.
_HARMLESS = (
    *("argparse.Namespace", "types.SimpleNamespace", "pathlib.", "datetime.", "decimal.Decimal", "fractions.Fraction"),
    *("uuid.UUID", "enum.", "typing.", "functools.partial", "collections.deque", "collections.ChainMap", "re._compile"),
    *("__main__.", "numpy.random.", "torch.optim.", "torch.nn.", "torch.torch_version.TorchVersion"),
)
_KNOWN_PACKAGES = {*sys.stdlib_module_names, "numpy", "torch"}


class RefusedError(InputError):
    """A pickle asks for something that is not an array or a plain container.

    Attributes:
        name: what it asks for, such as "os.system".
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"refused, as it asks to run {name}. Nothing of it was run")
        self.name = name


class PassedOver:
    """Stands where a pickle has an object that is no array; it takes whatever it is given, and does nothing.

    Attributes:
        name: what the object was, such as "argparse.Namespace".
        state: the attributes it had.
    """

    name = ""
    state: Any = None

    def __new__(cls, *args: object, **kwargs: object) -> PassedOver:  # noqa: ARG004 (what it is made of does not count)
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    add = append


def read_pickled_arrays(
    source: str | Path | BinaryIO,
    *,
    also: Mapping[tuple[str, str], Any] | None = None,
    passed_over: set[str] | None = None,
) -> Any:
    """What a pickle of arrays and plain containers holds.

    Args:
        source: a path, or an open file.
        also: more that may be made, by module and name.
        passed_over: objects of other programs get a :class:`PassedOver`, and their names are put here; None: they are
            refused.

    Raises:
        RefusedError: it asks for anything else, which is named and not run.
        InputError: there is no such file, or it is damaged.
    """
    try:
        if not isinstance(source, str | Path):
            return _ArrayUnpickler(source, also, passed_over).load()
        with Path(source).open("rb") as file:
            return _ArrayUnpickler(file, also, passed_over).load()
    except RefusedError:
        raise
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"{source}: not a pickle of arrays, or cut off: {error}") from None


def make_pickle_module(also: Mapping[tuple[str, str], Any], passed_over: set[str]) -> Any:
    """The same unpickler in the form of Python's module ``pickle``, as ``torch.load`` takes it."""

    class Unpickler(_ArrayUnpickler):
        def __init__(self, file: BinaryIO, *, encoding: str = "latin1") -> None:
            super().__init__(file, also, passed_over, encoding=encoding)

    def load(file: BinaryIO, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(Unpickler=Unpickler, load=load, __name__="resnet_det.pickles")


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can only make arrays, plain containers and stand-ins."""

    def __init__(
        self,
        file: BinaryIO,
        also: Mapping[tuple[str, str], Any] | None,
        passed_over: set[str] | None,
        *,
        encoding: str = "latin1",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self.allowed = _ALLOWED | dict(also or {})
        self.passed_over = passed_over

    def find_class(self, module: str, name: str) -> Any:
        module, name = NAME_MAPPING.get((module, name), (module, name))  # Python 2's names, which older protocols have
        module = IMPORT_MAPPING.get(module, module)
        allowed = self.allowed.get((module, name))
        if allowed is not None:
            return allowed
        full = f"{module}.{name}"
        if self.passed_over is None or not _is_harmless(full):
            refuse(full)
        self.passed_over.add(full)
        return type("PassedOver", (PassedOver,), {"name": full})


def _is_harmless(name: str) -> bool:
    """Whether an object of that name may be passed over: known to hold values alone, or of somebody's own package."""
    return name.startswith(_HARMLESS) or name.partition(".")[0] not in _KNOWN_PACKAGES


def refuse(name: str) -> Any:
    """
    Raises:
        RefusedError: always.
    """
    raise RefusedError(name)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode(encoding) if encoding == "latin1" else refuse(f"_codecs.encode to {encoding}")


def _reconstruct(made: Any, base: Any = object, state: Any = None) -> Any:
    """In place of copyreg's function, by which older pickles make their objects: it makes stand-ins alone."""
    del base, state
    is_passed_over = isinstance(made, type) and issubclass(made, PassedOver)
    return made() if is_passed_over else refuse("copyreg._reconstructor")


def _make_defaultdict(factory: Callable[[], Any] | None = None) -> dict[Any, Any]:
    """A plain one: what it would be filled with is not called."""
    del factory
    return {}


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("collections", "defaultdict"): _make_defaultdict,
    **{("builtins", kind.__name__): kind for kind in (set, frozenset, bytearray, complex, slice, object)},
    **{("builtins", kind.__name__): kind for kind in (bool, int, float, str, list, tuple, dict)},
    ("copyreg", "_reconstructor"): _reconstruct,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): getattr(np._core.multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}
