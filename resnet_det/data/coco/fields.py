"""The forms in which tools write the fields of COCO's entries, and what each becomes.

A function ``read_*`` returns the value that COCO's format has for the field, or None where there is no telling.
docs/data.md lists the forms and who writes them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from msgspec import UNSET

MAX_NUMBER = 2**62  # larger whole numbers do not fit NumPy's types
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "": 0, "0.0": 0, "1.0": 1}
_BOX_KEYS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))


def read_id(value: Any) -> int | str | None:
    """An id: a whole number (1.0 is one, too) or a text that is not empty."""
    if type(value) is int or (type(value) is str and value):
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def id_text(value: Any) -> str:
    """The same for ids that differ in their type alone: 7, 7.0 and "7"."""
    return str(read_id(value)).strip()


def id_order(value: Any) -> tuple[bool, Any]:
    """To sort ids of any types by: numbers first."""
    return isinstance(value, str), value


def read_number(value: Any) -> float | None:
    """A finite number; as text, or as the one element of a list, too."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
        value = int(value) if value.is_integer() and abs(value) < MAX_NUMBER else value
    return value if is_number(value) and math.isfinite(value) else None


def read_size(value: Any) -> int | None:
    """A number of pixels from 1 on."""
    number = read_number(value)
    return int(number) if number is not None and number >= 1 and number == int(number) else None


def read_flag(value: Any) -> int | None:
    """``iscrowd`` or ``ignore``: 0 or 1. What is absent, null or empty is 0."""
    if value is None or value is UNSET:
        return 0
    if isinstance(value, (bool, int, float)):
        return int(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


def read_box(value: Any) -> list[float] | None:
    """[x, y, width, height]: a list of four numbers, or an object with these keys. NaN and infinity stay."""
    if isinstance(value, dict):
        keys = next((keys for keys in _BOX_KEYS if all(key in value for key in keys)), None)
        value = [value[key] for key in keys] if keys else None
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [one if is_number(one) else read_number(one) for one in value]
    return None if None in numbers else numbers


def is_absent(value: Any) -> bool:
    """Whether a field says nothing: it is not there, null, or empty."""
    return value is UNSET or value is None or (isinstance(value, (list, dict, str)) and len(value) == 0)


def is_number(value: Any) -> bool:
    """Whether it is a number, NaN and infinity included, that arrays can hold."""
    return type(value) is float or (type(value) is int and abs(value) < MAX_NUMBER)


class References:
    """Finds the entries that ids mean, where the two may be of different types: "7" means 7 unless there is a "7"."""

    def __init__(self, ids: Iterable[Hashable]) -> None:
        self.rows: dict[Hashable, int] = {}
        for row, value in enumerate(ids):
            self.rows.setdefault(value, row)
        self._by_text: Mapping[str, int | None] | None = None

    def find(self, value: Any) -> tuple[int, bool]:
        """The place of the entry, -1 if there is none, and whether the id had another form."""
        if isinstance(value, Hashable) and value in self.rows and not isinstance(value, bool):
            return self.rows[value], False
        if read_id(value) is None:
            return -1, False
        if self._by_text is None:
            self._by_text = {}
            for known, row in self.rows.items():
                text = id_text(known)
                self._by_text[text] = None if text in self._by_text else row  # of two that may be meant, neither
        row = self._by_text.get(id_text(value))
        return (-1, False) if row is None else (row, True)
