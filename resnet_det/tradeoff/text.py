"""The same for a terminal."""

from __future__ import annotations

from tabulate import tabulate

from resnet_det.evaluation.text import format_interval
from resnet_det.tradeoff.tradeoff import Tradeoff
from resnet_det.tradeoff.verdict import TASKS, Verdict


def format_tradeoff(tradeoff: Tradeoff, verdict: Verdict) -> str:
    """A table, the cheapest detector first, and the verdict."""
    tasks = [TASKS[accuracy.iou_type] for accuracy in tradeoff.accuracies] or ["AP"]
    headers = ["", *tasks, "ms an image", "fastest - slowest", "GMACs", "parameters (M)", "peak memory (MiB)"]
    rows = []
    for place in tradeoff.order(tradeoff.accuracies[0] if tradeoff.accuracies else None):
        cost = tradeoff.costs[place]
        intervals = [accuracy.interval(place) for accuracy in tradeoff.accuracies]
        found = [format_interval(one) for one in intervals] or ["-"]
        rounds = cost.rounds_ms
        rows.append(
            [
                tradeoff.names[place],
                *found,
                _number(cost.latency_ms),
                f"{min(rounds):.1f} - {max(rounds):.1f}" if rounds else "-",
                _number(cost.gmacs),
                _number(cost.parameters_m),
                _number(cost.memory_mib),
            ]
        )
    table = tabulate(rows, headers, colalign=["left", *["right"] * (len(headers) - 1)], disable_numparse=True)
    return "\n\n".join([table, *verdict.sentences, *tradeoff.notes])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
