"""Whether an experiment confirms its statement: a rule that looks at the numbers alone.

A statement is made of claims, each about one number, of which every seed gives a value. A margin says how far chance
may move that number; it is the greater of

- what chance makes of the images that the value was measured on (95 %; more where one claim makes several comparisons),
- three standard errors of the mean over the seeds, which for two seeds is one and a half times their difference. By
  Student's t that covers 80 % with two seeds, 90 % with three and 96 % with five; 95 % would take 12.7 standard errors
  with two. Several comparisons do not widen it.

With one seed, and no standard error of its value known, there is no margin. A claim

- holds if the mean is above a limit by more than the margin, and the value of every seed is above it,
- is contradicted if the mean is below a lower limit, or the same one, by more than the margin, and every value is,
- is open otherwise, and without a margin.

That something does not happen is a claim with a limit below 0: it may happen by so much.

The statement is confirmed if all claims hold, not confirmed if one is contradicted, and else it does not show at this
size. Conditions, such as that the nets have learned anything at all, are claims that cannot contradict: without them
nothing shows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resnet_det.explain.estimates import Estimate, combine, normal_quantile

CONFIRMED, NOT_CONFIRMED, NOT_SHOWN = "confirmed", "not confirmed", "does not show at this size"
LEARNED = 10.0  # points better than guessing
HOLDS, CONTRADICTED, OPEN = "holds", "contradicted", "open"
SEEDS = "seed", "seeds"
DRAWS = "draw of images for the same nets", "draws of images for the same nets"
ONCE = "measurement", "measurements"
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Claim:
    """What must be so for a statement to be confirmed.

    Attributes:
        text: the claim in words, such as "plain-56 has more training error than plain-20".
        values: of each seed.
        above: the claim holds if the values are above this by more than the margin.
        below: it is contradicted if they are below this by more than the margin; None: ``above``.
        unit: of the values, such as "points"; they are shown with ``digits`` behind the point.
        is_condition: it cannot contradict.
        comparisons: that were made to choose the values from, or that share the 5 % (Bonferroni).
        repeats: what there is a value of: one of it, and several.
    """

    text: str
    values: Sequence[Estimate]
    above: float = 0.0
    below: float | None = None
    unit: str = ""
    digits: int = 1
    is_condition: bool = False
    comparisons: int = 1
    repeats: tuple[str, str] = SEEDS

    @property
    def margin(self) -> float | None:
        """How far chance may move the mean of the values; None: not known."""
        known = []
        if all(one.deviation is not None for one in self.values):
            known.append(normal_quantile(self.comparisons) * max(one.deviation for one in self.values))
        if len(self.values) > 1:
            deviation = statistics.stdev(one.value for one in self.values)
            known.append(3 * deviation / math.sqrt(len(self.values)))
        return max(known, default=None)

    @property
    def state(self) -> str:
        values = [one.value for one in self.values]
        if not values or not all(map(math.isfinite, values)) or self.margin is None:
            return OPEN
        mean, margin = statistics.fmean(values), self.margin
        lower = self.above if self.below is None else self.below
        if mean > self.above + margin and min(values) > self.above:
            return HOLDS
        is_below = mean < lower - margin and max(values) < lower
        return CONTRADICTED if is_below and not self.is_condition else OPEN

    @property
    def sentence(self) -> str:
        """The claim with its numbers, and what they say."""
        if not self.values or not all(math.isfinite(one.value) for one in self.values):
            return f"not measured: {self.text}"
        shown, state = f"{self.text} ({self._numbers()})", self.state
        if self.margin is None:
            return f"its error is not known: {shown}"
        if state == OPEN:
            return f"{'a condition that is not met' if self.is_condition else 'too close to tell'}: {shown}"
        return shown if state == HOLDS else f"not so: {shown}"

    def _numbers(self) -> str:
        """Such as "4.0 points, 3.0 to 5.0 over 2 seeds; margin 1.2"."""
        values = [one.value for one in self.values]
        parts = [f"{self._tell(statistics.fmean(values))}{f' {self.unit}' if self.unit else ''}"]
        single, several = self.repeats
        if len(values) == 1:
            parts.append(f"one {single}: no spread known")
        else:
            parts.append(f"{self._tell(min(values))} to {self._tell(max(values))} over {len(values)} {several}")
        text = ", ".join(parts)
        if self.margin:
            text += f"; margin {self._tell(self.margin)}"
        if self.above:
            text += f"; limit {self._tell(self.above)}"
        return text

    def _tell(self, value: float) -> str:
        text = f"{abs(value):.{self.digits}f}"
        return f"{_MINUS}{text}" if value < 0 and float(text) else text


def worst_of(claims: Sequence[Claim]) -> Claim:
    """The claim that speaks for several of one unit that must all hold: one that is contradicted, or else open, if
    there is one; of these the lowest, by the mean less the margin.

    Args:
        claims: one or more with values, each with ``comparisons`` as many as there are.
    """

    def rank(claim: Claim) -> tuple[int, float]:
        mean = statistics.fmean(one.value for one in claim.values)
        return (CONTRADICTED, OPEN, HOLDS).index(claim.state), mean - (claim.margin or 0.0)

    return min(claims, key=rank)


@dataclass(frozen=True)
class Verdict:
    """What the claims say together.

    Attributes:
        failures: what kept seeds from being measured; then nothing is confirmed, and nothing contradicted.
    """

    claims: Sequence[Claim]
    failures: Sequence[str] = ()

    @property
    def outcome(self) -> str:
        conditions, claims = ([c for c in self.claims if c.is_condition == kind] for kind in (True, False))
        if self.failures or not claims or not all(condition.state == HOLDS for condition in conditions):
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
        if self.failures:
            reason = "; ".join(self.failures)
        elif self.outcome == CONFIRMED:
            reason = f"all {held} claims hold" if held > 1 else "its claim holds"
        elif self.outcome == NOT_CONFIRMED:
            reason = "; ".join(contradicted)
        else:
            reason = f"{held} of {len(self.claims)} claims {'holds' if held == 1 else 'hold'}"
        return f"{self._outcome}: {reason}."

    @property
    def sentence(self) -> str:
        """The outcome, and each claim with its numbers."""
        parts = [*self.failures, *(claim.sentence for claim in self.claims)]
        return f"{self._outcome}: {'; '.join(parts) or 'nothing was measured'}."

    @property
    def _outcome(self) -> str:
        return f"{self.outcome[0].upper()}{self.outcome[1:]}"


def has_learned(worst: Sequence[Estimate], guessing: Sequence[float], who: str = "all nets are") -> Claim:
    """The condition that nets are at least 10 points of error better than guessing.

    Args:
        worst: the highest error of the nets, of each seed.
        guessing: :func:`resnet_det.explain.estimates.guessing_error` of the images of each seed.
    """
    text = f"{who} {LEARNED:.0f} points better than guessing"
    values = [combine((-1, error), constant=chance) for error, chance in zip(worst, guessing, strict=True)]
    return Claim(text, values, above=LEARNED, unit="points", is_condition=True)
