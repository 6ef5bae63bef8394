"""Is the dearest detector worth it? The answer in plain sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resnet_det.evaluation.bootstrap import Interval
from resnet_det.tradeoff.accuracy import Accuracy
from resnet_det.tradeoff.cost import AXES
from resnet_det.tradeoff.learning import last_rise
from resnet_det.tradeoff.pareto import Step, find_cheapest_good
from resnet_det.tradeoff.tradeoff import Tradeoff

TASKS = {"bbox": "box AP", "segm": "mask AP", "keypoints": "keypoint AP"}
MAX_RISE = 1.0  # of AP, from one evaluation to the next: with more, training was not at its end
_JUDGED = {
    "gain": "Yes{price}: it is clearly better than {reference}, and {cost}.",
    "chance": "Not as far as these images show: it is not clearly better than {reference}, and {cost}.",
    "loss": "No: it is clearly worse than {reference}, and {cost}.",
    "unknown": "No verdict, {why}. Compared with {reference}, it {cost}.",
}


@dataclass(frozen=True)
class Verdict:
    """The question, its answer in one sentence, the numbers behind it, and those of each of the other detectors."""

    question: str
    answer: str
    reasons: list[str]
    others: list[str]

    @property
    def sentences(self) -> list[str]:
        return [f"{self.question} {self.answer}", *self.reasons, *self.others]


def find_verdict(tradeoff: Tradeoff) -> Verdict:
    """What to tell somebody who asks whether the dearest of the detectors is worth it."""
    if not tradeoff.accuracies:
        return _without_ap(tradeoff)
    accuracy = tradeoff.accuracies[0]
    *others, last = steps = tradeoff.steps(accuracy)
    answer = _JUDGED[last.judgement].format(
        price="" if last.extra.low <= 0 else ", at a price",
        reference=tradeoff.names[last.reference],
        cost=_describe_price(tradeoff, last),
        why=accuracy.why_no_interval or "there is no confidence interval",
    )
    reasons = [_explain(tradeoff, accuracy, last) + _diminishing(tradeoff, steps, last)]
    for other in tradeoff.accuracies[1:]:
        gain = other.difference(last.reference, last.place)
        task = TASKS[other.iou_type]
        reasons.append(f"{task[0].upper()}{task[1:]}: {_difference(gain)}.")
    if all(step.judgement != "unknown" for step in steps):
        good = tradeoff.names[find_cheapest_good(tradeoff.order(accuracy), accuracy.difference)]
        reasons.append(
            f"{good} is the dearest, and clearly better than each cheaper one."
            if good == tradeoff.names[last.place] and all(step.judgement == "gain" for step in steps)
            else f"{good} is the cheapest that no dearer one clearly beats."
        )
    return Verdict(
        f"Is {tradeoff.names[last.place]} worth it?",
        answer,
        reasons + _still_rising(tradeoff, accuracy),
        [_explain(tradeoff, accuracy, step) for step in reversed(others)],
    )


def _explain(tradeoff: Tradeoff, accuracy: Accuracy, step: Step) -> str:
    name, reference = tradeoff.names[step.place], tradeoff.names[step.reference]
    found = f"{accuracy.ap[step.place]:.1f} {TASKS[accuracy.iou_type]}, {reference} {accuracy.ap[step.reference]:.1f}"
    return f"{name} has {found}: {_difference(step.gain)}. {_describe_extra(tradeoff, step)}"


def _still_rising(tradeoff: Tradeoff, accuracy: Accuracy) -> list[str]:
    """A sentence on the detectors that training had not finished with."""
    rises = {
        name: last_rise(curves.get(f"{accuracy.iou_type}/AP", []))
        for name, curves in zip(tradeoff.names, tradeoff.curves, strict=False)
    }
    rising = [f"{name} (+{rise:.1f})" for name, rise in rises.items() if rise > MAX_RISE]
    if not rising:
        return []
    return [
        f"AP was still rising from the last evaluation but one to the last: {', '.join(rising)}. Longer training may "
        "change the answer."
    ]


def _difference(gain: Interval) -> str:
    if math.isnan(gain.value):
        return "no difference can be told"
    size = f"{abs(gain.value):.1f} {'more' if gain.value >= 0 else 'less'}" if abs(gain.value) >= 0.05 else "the same"
    if not gain.is_known:
        return size
    size += f" ({gain.low:+.1f} to {gain.high:+.1f})"
    return size if gain.low > 0 or gain.high < 0 or abs(gain.value) < 0.05 else f"{size}, which may be chance"


def _describe_price(tradeoff: Tradeoff, step: Step) -> str:
    if step.extra.low <= 0:
        return "is not clearly slower" if tradeoff.axis == "latency_ms" else "costs the same"
    if tradeoff.axis == "latency_ms":
        return f"takes {step.times:.1f} times as long"
    return f"has {step.times:.1f} times as many {AXES[tradeoff.axis].removeprefix('million ')}"


def _describe_extra(tradeoff: Tradeoff, step: Step) -> str:
    cost = tradeoff.cost()
    dear, cheap = cost[step.place], cost[step.reference]
    if tradeoff.axis != "latency_ms":
        return f"It has {dear:.1f} {AXES[tradeoff.axis]} instead of {cheap:.1f} ({step.times:.1f} times as many)."
    if step.extra.low <= 0:
        return f"It takes {dear:.1f} ms an image, {cheap:.1f} the other: the rounds do not tell them apart."
    return f"It takes {dear:.1f} ms an image instead of {cheap:.1f} ({step.times:.1f} times as long)."


def _diminishing(tradeoff: Tradeoff, steps: list[Step], last: Step) -> str:
    """How much less the last step brings than the one before, where both bring something."""
    before = next((step for step in steps if step.place == last.reference), None)
    if before is None or before.gain_per_extra is None or last.gain_per_extra is None:
        return ""
    if last.judgement != "gain" or before.judgement != "gain":
        return ""
    unit, names = AXES[tradeoff.axis], tradeoff.names
    return (
        f" That is {last.gain_per_extra.value:.2g} AP for each extra {unit.replace('GMACs', 'GMAC')}; from "
        f"{names[before.reference]} to {names[before.place]} it was {before.gain_per_extra.value:.2g}."
    )


def _without_ap(tradeoff: Tradeoff) -> Verdict:
    order, cost = tradeoff.order(), tradeoff.cost()
    names, unit = tradeoff.names, AXES[tradeoff.axis]
    dearest, cheapest = order[-1], order[0]

    def compare(place: int, reference: int) -> str:
        return (
            f"{names[place]} costs {cost[place]:.1f} {unit}, {cost[place] / cost[reference]:.1f} times as much as "
            f"{names[reference]} ({cost[reference]:.1f})."
        )

    return Verdict(
        f"Is {names[dearest]} worth it?",
        "Configs alone do not tell: they have no AP.",
        [
            compare(dearest, cheapest),
            "To learn what that buys, train them and give their folders.",
        ],
        [compare(place, cheapest) for place in reversed(order[1:-1])],
    )
