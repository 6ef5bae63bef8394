"""Read pickled arrays without running anything that is in the file."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.errors import InputError

_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding) if encoding == "latin1" else _refuse(encoding),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): getattr(np._core.multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}


class RefusedError(InputError):
    """A pickle asks for something that is not an array or a plain container.

    Attributes:
        name: what it asks for, such as "os.system".
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"refused, as it asks to run {name}. Nothing of it was run")
        self.name = name


def read_pickled_arrays(path: str | Path, *, also: dict[tuple[str, str], Any] | None = None) -> Any:
    """What a pickle of arrays and plain containers holds.

    Args:
        also: more that may be made, by module and name.

    Raises:
        RefusedError: it asks for anything else, which is named and not run.
        InputError: there is no such file, or it is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, _ALLOWED | (also or {})).load()
    except RefusedError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"{path}: not a pickle of arrays, or cut off: {error}") from None


def _refuse(name: str) -> Any:
    raise RefusedError(name)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can only make arrays and plain containers."""

    def __init__(self, file: Any, allowed: dict[tuple[str, str], Any]) -> None:
        super().__init__(file, encoding="latin1")
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        allowed = self.allowed.get((module, name))
        return allowed if allowed is not None else _refuse(f"{module}.{name}")
