"""Which detections are shown."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from resnet_det.errors import InputError


@dataclass(frozen=True)
class Filter:
    """Scores of at least ``min_score``, and classes (counted from 0) among ``classes``; None: all."""

    min_score: float = 0.0
    classes: frozenset[int] | None = None

    def of_instances(self, instances: Instances) -> Instances:
        """Those of a model's predictions that are shown, best first."""
        scores, classes = instances.scores.numpy(), instances.pred_classes.tolist()
        order = np.argsort(-scores, kind="stable").tolist()
        return instances[[i for i in order if scores[i] >= self.min_score and self.has(classes[i])]]

    def has(self, class_id: int) -> bool:
        return self.classes is None or int(class_id) in self.classes

    def has_segment(self, segment: Mapping[str, Any]) -> bool:
        """Whether a panoptic segment is shown; with classes given, what has no instances is not."""
        return self.has(segment["category_id"]) if segment["isthing"] else self.classes is None


def find_classes(wanted: Collection[str] | None, class_names: Sequence[str]) -> frozenset[int] | None:
    """The places of the names ``wanted`` among ``class_names``, upper and lower case being the same; None for None.

    Raises:
        InputError: there is no such class.
    """
    if wanted is None:
        return None
    places: dict[str, list[int]] = {}
    for place, name in enumerate(class_names):
        places.setdefault(name.lower(), []).append(place)
    for name in wanted:
        if name.lower() not in places:
            close = difflib.get_close_matches(name.lower(), places, n=1)
            known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
            meant = f"; did you mean {class_names[places[close[0]][0]]!r}?" if close else ""
            raise InputError(f"--classes {name}: there is no such class{meant} The classes are {known}")
    return frozenset(place for name in wanted for place in places[name.lower()])
