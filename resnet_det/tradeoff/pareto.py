"""Which detectors are worth their cost: the Pareto front, and what each step along it brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnet_det.evaluation.bootstrap import Interval


def find_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of the points that no other beats, the cheapest first.

    One point beats another if it costs no more and is worth no less, and one of the two is better. Of equal points all
    are on the front.
    """
    points = list(zip(costs, values, strict=True))
    return [
        place
        for place in order_by_cost(costs, values)
        if not any(other != points[place] and _is_as_good(other, points[place]) for other in points)
    ]


def order_by_cost(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """All places, the cheapest first; at the same cost, the best first."""
    return sorted(range(len(costs)), key=lambda place: (costs[place], -values[place]))


def _is_as_good(point: tuple[float, float], other: tuple[float, float]) -> bool:
    return point[0] <= other[0] and point[1] >= other[1]


@dataclass(frozen=True)
class Step:
    """A detector against the best of those that cost less.

    Attributes:
        place, reference: of the two among all.
        gain: difference of AP, with its paired interval.
        extra: difference of cost; that of time has the interval of the median of rounds.
        times: its cost over the reference's.
    """

    place: int
    reference: int
    gain: Interval
    extra: Interval
    times: float

    @property
    def gain_per_extra(self) -> Interval | None:
        """AP for each unit of extra cost; None where there is no extra cost to speak of."""
        if self.extra.low <= 0:
            return None
        return Interval(*(bound / self.extra.value for bound in (self.gain.value, self.gain.low, self.gain.high)))

    @property
    def judgement(self) -> str:
        """ "gain" or "loss" where the interval of the difference leaves out 0, else "chance"; "unknown" without one."""
        if not self.gain.is_known:
            return "unknown"
        if self.gain.low > 0:
            return "gain"
        return "loss" if self.gain.high < 0 else "chance"


def find_steps(
    costs: Sequence[float],
    values: Sequence[float],
    gain: Callable[[int, int], Interval],
    extra: Callable[[int, int], Interval],
) -> list[Step]:
    """Each detector but the cheapest, against the best of the cheaper ones; the cheapest first.

    Args:
        gain, extra: difference of AP and of cost between two places, the second against the first.
    """
    order = order_by_cost(costs, values)
    steps = []
    for number, place in enumerate(order[1:], start=1):
        reference = max(order[:number], key=lambda other: values[other])  # of equals the cheapest
        steps.append(
            Step(place, reference, gain(reference, place), extra(reference, place), costs[place] / costs[reference])
        )
    return steps


def find_cheapest_good(order: Sequence[int], gain: Callable[[int, int], Interval]) -> int:
    """The first place in ``order``, the cheapest first, that none after it is clearly better than."""
    return next(
        place
        for number, place in enumerate(order)
        if not any(gain(place, dearer).low > 0 for dearer in order[number + 1 :])
    )
