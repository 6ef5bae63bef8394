"""Everything that is known of detectors to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from resnet_det.evaluation.bootstrap import Interval
from resnet_det.tradeoff.accuracy import Accuracy
from resnet_det.tradeoff.cost import Cost, extra_cost, find_axis
from resnet_det.tradeoff.learning import Curve
from resnet_det.tradeoff.pareto import Step, find_front, find_steps, order_by_cost


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """Detectors, their cost and, of runs, their AP; lists are in the order in which they were given.

    Attributes:
        accuracies: for each kind of evaluation that all have; empty for configs alone.
        curves: learning curves of each.
        differences: what else is not the same in their configs, key by key.
        facts: what was compared, and on what.
        notes: what a reader should know beside the numbers.
    """

    names: Sequence[str]
    sources: Sequence[str]
    costs: Sequence[Cost]
    accuracies: Sequence[Accuracy] = ()
    curves: Sequence[Mapping[str, Curve]] = ()
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @cached_property
    def axis(self) -> str:
        """The attribute of :class:`~resnet_det.tradeoff.cost.Cost` by which they are ordered."""
        return find_axis(self.costs)

    @property
    def is_complete(self) -> bool:
        """Whether all of them could be run."""
        return all(cost.gmacs is not None for cost in self.costs)

    def cost(self, axis: str | None = None) -> list[float]:
        """Of each, by ``axis``, or the one that they are ordered by."""
        return [getattr(cost, axis or self.axis) for cost in self.costs]

    def extra(self, first: int, second: int) -> Interval:
        """What the second costs more than the first."""
        return extra_cost(self.costs[first], self.costs[second], self.axis)

    def order(self, accuracy: Accuracy | None = None) -> list[int]:
        """Places, the cheapest first."""
        return order_by_cost(self.cost(), accuracy.ap if accuracy else [0.0] * len(self.names))

    def front(self, accuracy: Accuracy, axis: str | None = None) -> list[int]:
        return find_front(self.cost(axis), accuracy.ap)

    def steps(self, accuracy: Accuracy) -> list[Step]:
        return find_steps(self.cost(), accuracy.ap, accuracy.difference, self.extra)


def summarize(tradeoff: Tradeoff, answer: Sequence[str]) -> dict[str, Any]:
    """All numbers, for JSON."""
    detectors = []
    for place, (name, source, cost) in enumerate(zip(tradeoff.names, tradeoff.sources, tradeoff.costs, strict=True)):
        found = {
            accuracy.iou_type: {"metrics": accuracy.metrics[place], "interval": asdict(accuracy.interval(place))}
            for accuracy in tradeoff.accuracies
        }
        detectors.append({"name": name, "source": source, **asdict(cost), "ap": found})
    return {
        "answer": list(answer),
        "ordered_by": tradeoff.axis,
        "detectors": detectors,
        "comparisons": {accuracy.iou_type: _summarize_accuracy(tradeoff, accuracy) for accuracy in tradeoff.accuracies},
        "learning_curves": dict(zip(tradeoff.names, tradeoff.curves, strict=False)),
        "other_differences": dict(tradeoff.differences),
        "facts": dict(tradeoff.facts),
        "notes": list(tradeoff.notes),
    }


def _summarize_accuracy(tradeoff: Tradeoff, accuracy: Accuracy) -> dict[str, Any]:
    names = tradeoff.names
    steps = [
        {
            "detector": names[step.place],
            "reference": names[step.reference],
            "ap": asdict(step.gain),
            "extra": asdict(step.extra),
            "times": step.times,
            "ap_per_extra": None if step.gain_per_extra is None else asdict(step.gain_per_extra),
            "judgement": step.judgement,
        }
        for step in tradeoff.steps(accuracy)
    ]
    pairs = [
        {"first": names[first], "second": names[second], **asdict(accuracy.difference(first, second))}
        for first in range(len(names))
        for second in range(first + 1, len(names))
    ]
    front = [names[place] for place in tradeoff.front(accuracy)]
    return {"pareto_front": front, "steps": steps, "paired_differences": pairs}
