"""Costs as a table, as JSON and as a plot against depth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure
import tabulate

from resnet_det.analysis.cost import PartCost

_HEADERS = ("part", "parameters", "GMACs", "activations (M)", "latency (ms)", "weights + activations (MiB)")


def format_costs(costs: Sequence[PartCost]) -> str:
    """A table with one line per part."""
    rows = [
        (
            cost.name,
            f"{cost.parameters:,}",
            f"{cost.gmacs:.2f}",
            f"{cost.activations / 1e6:.2f}",
            "-" if cost.latency_ms is None else f"{cost.latency_ms:.1f}",
            f"{cost.tensors_mib:.1f}",
        )
        for cost in costs
    ]
    return tabulate.tabulate(rows, _HEADERS, colalign=("left", *["right"] * 5), disable_numparse=True)


def write_costs(costs: Mapping[str, Sequence[PartCost]], path: Path) -> None:
    """Write the costs of each model, by its name, as JSON: {model: {part: {...}}}."""
    content = {
        model: {cost.name: {key: value for key, value in asdict(cost).items() if key != "name"} for cost in parts}
        for model, parts in costs.items()
    }
    path.write_text(json.dumps(content, indent=2))


def plot_costs(costs: Mapping[str, Sequence[PartCost]], path: Path) -> None:
    """Draw parameters, GMACs and latency of each model as bars, with a colour for each part."""
    panels = {"parameters (M)": lambda c: c.parameters / 1e6, "GMACs": lambda c: c.gmacs}
    if all(part.latency_ms is not None for parts in costs.values() for part in parts):
        panels["latency (ms)"] = lambda c: c.latency_ms
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(panels), 4.6), layout="constrained")
    all_axes = figure.subplots(1, len(panels))
    names = list(costs)
    parts = list(dict.fromkeys(part.name for model in costs.values() for part in model if part.name != "total"))
    colours = matplotlib.colormaps["viridis"].resampled(len(parts)).colors
    for axes, (title, value) in zip(all_axes, panels.items(), strict=True):
        bottoms = [0.0] * len(names)
        for part, colour in zip(parts, colours, strict=True):
            heights = [sum(max(0.0, value(c)) for c in costs[name] if c.name == part) for name in names]
            axes.bar(names, heights, bottom=bottoms, label=part, color=colour, width=0.7)
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        for position, total in enumerate(bottoms):
            axes.annotate(f"{total:.0f}", (position, total), ha="center", va="bottom")
        axes.set_title(title)
        axes.margins(y=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(parts), frameon=False)
    figure.savefig(path, dpi=120)
