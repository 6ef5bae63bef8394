"""tradeoff.html: what each detector brings and costs, on one page."""

from __future__ import annotations

import math
from typing import Any

from resnet_det.evaluation.bootstrap import CONFIDENCE, NUM_DRAWS, SEED
from resnet_det.evaluation.report import TASK_NAMES
from resnet_det.tradeoff.accuracy import Accuracy
from resnet_det.tradeoff.cost import AXES, Cost
from resnet_det.tradeoff.learning import LOSS
from resnet_det.tradeoff.tradeoff import Tradeoff
from resnet_det.tradeoff.verdict import Verdict
from resnet_det.visualization import charts
from resnet_det.visualization.page import render_page

_MAX_NAME = 20
_AXIS_LABELS = {"latency_ms": "ms an image", "gmacs": "GMACs for an image", "parameters_m": "million parameters"}


def render_tradeoff(tradeoff: Tradeoff, verdict: Verdict) -> str:
    """The page as HTML."""
    unit = AXES[tradeoff.axis]
    return render_page(
        "resnet_det.tradeoff",
        "tradeoff.html",
        title=f"{', '.join(tradeoff.names)} compared",
        tradeoff=tradeoff,
        verdict=verdict,
        sections=[_section(tradeoff, accuracy) for accuracy in tradeoff.accuracies],
        tables=_tables(tradeoff),
        explanation=_explain(tradeoff),
        unit=unit,
        unit_of_one=unit.removesuffix("s") if unit == "GMACs" else unit,
        curves=_learning_charts(tradeoff),
        bootstrap={"draws": NUM_DRAWS, "seed": SEED, "confidence": round(100 * CONFIDENCE)},
    )


def _section(tradeoff: Tradeoff, accuracy: Accuracy) -> dict[str, Any]:
    task, names = accuracy.iou_type, tradeoff.names
    bars = [(interval.low, interval.high) for interval in map(accuracy.interval, range(len(names)))]
    fronts = []
    for axis in AXES:
        costs = tradeoff.cost(axis)
        if None in costs:
            continue
        chart = charts.draw_front(
            f"front-{task}-{axis.replace('_', '-')}",
            [_shorten(name) for name in names],
            list(zip(costs, accuracy.ap, strict=True)),
            bars,
            tradeoff.front(accuracy, axis),
            (_AXIS_LABELS[axis], "AP"),
        )
        fronts.append(chart.to_svg(f"AP over {_AXIS_LABELS[axis]}"))
    steps = tradeoff.steps(accuracy)
    return {
        "title": TASK_NAMES[task],
        "accuracy": accuracy,
        "order": tradeoff.order(accuracy),
        "fronts": fronts,
        "steps": steps,
        "returns": _draw_returns(
            tradeoff, task, [step for step in steps if step.gain_per_extra is not None and step.gain.is_known]
        ),
    }


def _draw_returns(tradeoff: Tradeoff, task: str, steps: list) -> str:
    if not steps:
        return ""
    gains = [step.gain_per_extra for step in steps]
    unit = AXES[tradeoff.axis].replace("GMACs", "GMAC")
    return charts.draw_intervals(
        f"returns-{task}",
        [_shorten(tradeoff.names[step.place]) for step in steps],
        [gain.value for gain in gains],
        [gain.low for gain in gains],
        [gain.high for gain in gains],
        f"AP for each extra {unit}",
    ).to_svg(f"AP for each extra {unit}")


def _tables(tradeoff: Tradeoff) -> list[dict[str, Any]]:
    """All detectors, the cheapest first: AP beside cost, then COCO's other numbers of each kind of evaluation.

    A row has the name and its numbers with their digits.
    """
    accuracies = tradeoff.accuracies
    order = tradeoff.order(accuracies[0] if accuracies else None)
    columns = ["detector"]
    for accuracy in accuracies:
        columns += [f"AP {TASK_NAMES[accuracy.iou_type].lower()}", "from", "to"]
    columns += [] if accuracies else ["AP"]
    columns += ["ms an image", "fastest", "slowest", "GMACs", "parameters (M)", "peak memory (MiB)", "weights (MiB)"]
    rows = []
    for place in order:
        found: list[tuple[float, int]] = [] if accuracies else [(math.nan, 1)]
        for accuracy in accuracies:
            interval = accuracy.interval(place)
            found += [(value, 1) for value in (interval.value, interval.low, interval.high)]
        rows.append({"name": tradeoff.names[place], "cells": [*found, *_cost_cells(tradeoff.costs[place])]})
    tables = [{"title": "", "columns": columns, "rows": rows}]
    for accuracy in accuracies:
        names = list(accuracy.metrics[0])
        rows = [
            {"name": tradeoff.names[place], "cells": [(accuracy.metrics[place][name], 1) for name in names]}
            for place in order
        ]
        tables.append({"title": TASK_NAMES[accuracy.iou_type], "columns": ["detector", *names], "rows": rows})
    return tables


def _cost_cells(cost: Cost) -> list[tuple[float, int]]:
    rounds = cost.rounds_ms or (math.nan,)
    known = [(cost.latency_ms, 1), (min(rounds), 1), (max(rounds), 1), (cost.gmacs, 1), (cost.parameters_m, 1)]
    known += [(cost.memory_mib, 0), (cost.weights_mib, 0)]
    return [(math.nan if value is None else value, digits) for value, digits in known]


def _explain(tradeoff: Tradeoff) -> str:
    rounds = max(len(cost.rounds_ms) for cost in tradeoff.costs)
    times = (
        f"Times are of one image after the other: the median of {rounds} rounds in which all took turns in one "
        "process, and the fastest and slowest round. "
        if rounds
        else "Times were not measured. "
    )
    return times + (
        "From the resized image in memory to the instances in its pixels. GMACs and memory are of the first image: "
        "peak memory is the most that tensors take at once beyond weights and input."
    )


def _learning_charts(tradeoff: Tradeoff) -> dict[str, str]:
    titles = {f"{task}/AP": f"AP, {name.lower()}" for task, name in TASK_NAMES.items()} | {LOSS: "Training loss"}
    drawn = {}
    for key, title in titles.items():
        series = {
            _shorten(name): curves[key]
            for name, curves in zip(tradeoff.names, tradeoff.curves, strict=False)
            if key in curves
        }
        if series:
            chart = charts.draw_lines(
                f"learning-{key.replace('/', '-').replace('_', '-').lower()}",
                series,
                ("iteration", title),
                marker="" if key == LOSS else "o",
            )
            drawn[title] = chart.to_svg(f"{title} over iterations")
    return drawn


def _shorten(name: str) -> str:
    """What of a name there is room for in a chart: its end, as paths differ there."""
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"
