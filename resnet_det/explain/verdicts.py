"""Whether an experiment confirms its statement: a rule that looks at the numbers alone.

A statement is made of claims, each about one number, which every seed gives a value of. A claim

- holds if the value of every seed is above a limit,
- is contradicted if the value of every seed is below a lower limit, or the same one,
- is open otherwise.

The statement is confirmed if all claims hold, not confirmed if one is contradicted, and else it does not show at this
size. Conditions, such as that the nets have learned anything at all, are claims that cannot contradict: without them
nothing shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIRMED, NOT_CONFIRMED, NOT_SHOWN = "confirmed", "not confirmed", "does not show at this size"
LEARNED = 10.0  # points better than guessing
HOLDS, CONTRADICTED, OPEN = "holds", "contradicted", "open"


@dataclass(frozen=True)
class Claim:
    """What must be so for a statement to be confirmed.

    Attributes:
        text: the claim in words, such as "plain-56 has more training error than plain-20".
        values: of each seed.
        above: the claim holds if all values are above this.
        below: it is contradicted if all values are below this; None: ``above``.
        unit: of the values, such as "points"; they are shown with ``digits`` behind the point.
        is_condition: it cannot contradict.
    """

    text: str
    values: Sequence[float]
    above: float = 0.0
    below: float | None = None
    unit: str = ""
    digits: int = 1
    is_condition: bool = False

    @property
    def state(self) -> str:
        values = list(self.values)
        if not values or not all(map(math.isfinite, values)):
            return OPEN
        if min(values) > self.above:
            return HOLDS
        is_below = max(values) < (self.above if self.below is None else self.below)
        return CONTRADICTED if is_below and not self.is_condition else OPEN

    @property
    def sentence(self) -> str:
        """The claim with its numbers, and what they say."""
        if not self.values:
            return f"not measured: {self.text}"
        shown = f"{self.text} ({self._numbers()})"
        return {HOLDS: shown, CONTRADICTED: f"not so: {shown}", OPEN: f"too close to tell: {shown}"}[self.state]

    def _numbers(self) -> str:
        unit, number = f" {self.unit}" if self.unit else "", f"{{:.{self.digits}f}}"
        mean = number.format(sum(self.values) / len(self.values))
        if len(self.values) == 1:
            return f"{mean}{unit}, one seed"
        low, high = number.format(min(self.values)), number.format(max(self.values))
        limit = "" if self.state == HOLDS else f"; more than {number.format(self.above)} would do"
        return f"{mean}{unit}, {low} to {high} over {len(self.values)} seeds{limit}"


@dataclass(frozen=True)
class Verdict:
    """What the claims say together."""

    claims: Sequence[Claim]

    @property
    def outcome(self) -> str:
        conditions, claims = ([c for c in self.claims if c.is_condition == kind] for kind in (True, False))
        if not claims or not all(condition.state == HOLDS for condition in conditions):
            return NOT_SHOWN
        states = {claim.state for claim in claims}
        if CONTRADICTED in states:
            return NOT_CONFIRMED
        return CONFIRMED if states == {HOLDS} else NOT_SHOWN

    @property
    def headline(self) -> str:
        """One sentence: the outcome, and what it follows from."""
        contradicted = [claim.sentence for claim in self.claims if claim.state == CONTRADICTED]
        held = sum(claim.state == HOLDS for claim in self.claims)
        if self.outcome == CONFIRMED:
            reason = f"all {held} claims hold" if held > 1 else "its claim holds"
        elif self.outcome == NOT_CONFIRMED:
            reason = "; ".join(contradicted)
        else:
            reason = f"{held} of {len(self.claims)} claims {'holds' if held == 1 else 'hold'}"
        return f"{self.outcome[0].upper()}{self.outcome[1:]}: {reason}."

    @property
    def sentence(self) -> str:
        """The outcome, and each claim with its numbers."""
        outcome = f"{self.outcome[0].upper()}{self.outcome[1:]}"
        return f"{outcome}: {'; '.join(claim.sentence for claim in self.claims) or 'nothing was measured'}."


def guessing_error(classes: int) -> float:
    """The error in percent of naming a class at random."""
    return 100 * (1 - 1 / classes)


def has_learned(leads: Sequence[float]) -> Claim:
    """The condition that a net is at least 10 points of error better than guessing.

    Args:
        leads: of the worst net of each seed.
    """
    text = f"all nets are {LEARNED:.0f} points better than guessing"
    return Claim(text, leads, above=LEARNED, unit="points", is_condition=True)


def resolution(error: float, images: int) -> float:
    """The least difference of two errors, in percentage points, that so many images tell from chance (95 %).

    Args:
        error: about which both are, in percent.
        images: that both are measured on.
    """
    share = min(max(error / 100, 1 / images), 1 - 1 / images)
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / images)
