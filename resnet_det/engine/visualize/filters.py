"""Which detections are shown."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
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
        scores = instances.scores.numpy()
        order = np.argsort(-scores, kind="stable")
        kept = [i for i in order.tolist() if self.has(instances.pred_classes[i].item()) and scores[i] >= self.min_score]
        return instances[kept]

    def of_annotations(self, annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of annotations and results, their ``category_id`` counted from 0, that are shown. The ground truth has
        no scores."""
        return [a for a in annotations if self.has(a["category_id"]) and a.get("score", 1.0) >= self.min_score]

    def has(self, class_id: int) -> bool:
        return self.classes is None or class_id in self.classes


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
