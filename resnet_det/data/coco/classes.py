"""A choice of the classes of an annotation file, in the order of the choice."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_det.data.coco.annotations import AnnotationColumns
from resnet_det.data.coco.problems import Finding
from resnet_det.errors import InputError


def choose_classes(
    columns: AnnotationColumns, categories: Sequence[dict[str, Any]], index: np.ndarray, names: Sequence[str]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The categories called ``names``, in this order; annotations of others are left out of ``columns``.

    A class that the file does not have stays, without objects, so that the same choice fits several files.

    Args:
        index: the places of ``categories`` in the file; that of a class that is not there is -1.

    Raises:
        InputError: the file has none of them.
    """
    rows = {category["name"]: row for row, category in enumerate(categories)}
    missing = [name for name in names if name not in rows]
    if len(missing) == len(names):
        close = difflib.get_close_matches(names[0], rows, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"no class is called {', '.join(map(repr, names))}; its classes are {list(rows)}{meant}")
    used = {category["id"] for category in categories}
    fresh = (number for number in itertools.count(1) if number not in used)
    chosen = [categories[rows[name]] if name in rows else {"id": next(fresh), "name": name} for name in names]
    places = np.array([index[rows[name]] if name in rows else -1 for name in names], dtype=np.int64)
    if missing:
        text = f"it has no class {', '.join(map(repr, missing))}, which was chosen"
        columns.findings.append(Finding("missing-class", "", np.zeros(0, np.int64), lambda _: text))
    new_rows = np.full(len(categories) + 1, -1)  # the last for annotations without a category, whose row is -1
    new_rows[[rows[name] for name in names if name in rows]] = [n for n, name in enumerate(names) if name in rows]
    columns.category = new_rows[columns.category]
    others = np.flatnonzero(columns.usable & (columns.category < 0))
    if len(others):
        columns.findings.append(Finding("other-class", "annotations", others, lambda _: "its class was not chosen"))
        columns.usable[others] = False
    return chosen, places
