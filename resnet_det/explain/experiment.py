"""What an experiment is: a statement, how it is measured, and the rule by which the numbers confirm it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resnet_det.errors import InputError
from resnet_det.explain.estimates import Estimate
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.verdicts import Claim

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """What the literature says, in our words, and where."""

    text: str
    where: str


@dataclass(frozen=True)
class Table:
    """Numbers by name; rows are a name and the cells behind it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Shown:
    """What the page shows of an experiment.

    Attributes:
        charts: SVG by title.
        tables: of numbers.
        pictures: rows of pictures by title: (caption, data URI).
    """

    charts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    pictures: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """
    Attributes:
        name: of the sub-command.
        title, statement: what is asked, and what is said.
        sources: what the literature says of it.
        rule: the claims that must hold, in words; :mod:`resnet_det.explain.verdicts` says what follows from them.
        measure: the numbers of one seed, as JSON has them.
        judge: the claims, from the numbers of all seeds.
        show: what to draw of them.
        sizes: for a machine without a GPU, and ``full`` for one with.
        duration: of the first, in words.
        takes_weights: whether nets from elsewhere will do (--weights).
        draws: the splits of which each seed draws as many images as there are probes.
        least_depths, most_depths: how many depths it takes; None: any number.
    """

    name: str
    title: str
    statement: str
    sources: Sequence[Source]
    rule: str
    measure: Callable[[Lab, Settings, int], dict[str, Any]]
    judge: Callable[[Sequence[Numbers]], list[Claim]]
    show: Callable[[Sequence[Numbers]], Shown]
    sizes: Settings
    duration: str
    full: Settings = FULL
    takes_weights: bool = False
    draws: Sequence[str] = ()
    least_depths: int = 1
    most_depths: int | None = None

    def check_depths(self, depths: Sequence[int]) -> None:
        """
        Raises:
            InputError: there are too few of them, or too many, or a net has no such depth.
        """
        for depth in depths:
            Net(depth)
        most = len(depths) if self.most_depths is None else self.most_depths
        if not self.least_depths <= len(depths) <= most:
            right = "one" if self.most_depths == 1 else f"{self.least_depths} or more"
            raise InputError(f"--depths {' '.join(map(str, depths))}: {self.name} takes {right} of them")


def over_seeds(
    numbers: Sequence[Numbers], value: Callable[[Numbers], float | None], deviation: float | None = None
) -> list[Estimate]:
    """A value of each seed; empty if one has none.

    Args:
        deviation: 0 where chance has no part in the value; None: no spread is known but that over seeds.
    """
    found = [value(one) for one in numbers]
    return [] if None in found else [Estimate(float(one), deviation) for one in found]
