"""Comparisons as tables in plain words, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import tabulate

from resnet_det.benchmark.compare import Comparison, Result
from resnet_det.errors import InputError

MIB = 2**20


def format_comparison(comparison: Comparison) -> str:
    """What was measured, a table, and how to read it."""
    baseline, item = comparison.results[0].name, comparison.item
    columns = {
        "": lambda result: result.name,
        "median (ms)": lambda result: f"{result.median_seconds * 1e3:.1f}",
        "fastest - slowest": lambda result: f"{min(result.seconds) * 1e3:.1f} - {max(result.seconds) * 1e3:.1f}",
        f"{item}s/s": lambda result: f"{comparison.items / result.median_seconds:.3g}",
        "times as fast": lambda result: f"{result.speed_up:.2f}",
        "spread": lambda result: f"{min(result.speed_ups):.2f} - {max(result.speed_ups):.2f}",
        "difference": lambda result: _format(result.difference, _difference),
        "memory (MiB)": lambda result: _format(result.peak_memory_bytes, lambda value: f"{value / MIB:.0f}"),
        "of peak": lambda result: _format(result.matmul_share, lambda value: f"{value:.0%}"),
    }
    shown = {
        title: cell
        for title, cell in columns.items()
        if title not in _OPTIONAL or any(getattr(result, _OPTIONAL[title]) is not None for result in comparison.results)
    }
    rows = [[cell(result) for cell in shown.values()] for result in comparison.results]
    align = ["left"] + ["right"] * (len(shown) - 1)
    table = tabulate.tabulate(rows, list(shown), colalign=align, disable_numparse=True)
    pairs = len(comparison.results[0].seconds)
    items = f"one {item}" if comparison.items == 1 else f"{comparison.items:,} {item}s"
    lines = [
        comparison.title,
        "",
        table,
        "",
        f"Each took its turn in {pairs} rounds, with {items} in a call. Times as fast: as {baseline} in the same "
        "round, the median.",
        *(text for title, text in _EXPLANATIONS.items() if title in shown),
        *comparison.notes,
        f"Load of the machine: {comparison.load[0]:.1f} before, {comparison.load[1]:.1f} after.",
    ]
    return "\n".join(lines)


_OPTIONAL = {"difference": "difference", "memory (MiB)": "peak_memory_bytes", "of peak": "matmul_share"}
_EXPLANATIONS = {
    "difference": "Difference: the largest of any number in the output, as a share of the largest value there.",
    "memory (MiB)": "Memory: the most that tensors took at once, beyond weights and inputs.",
    "of peak": "Of peak: operations a second, of those in a product of matrices of the same precision here.",
}


def _format(value: float | None, form) -> str:
    return "-" if value is None else form(value)


def _difference(value: float) -> str:
    return "other shapes" if math.isinf(value) else f"{value:.1e}"


def write_comparisons(
    comparisons: Sequence[Comparison], path: Path, *, machine: Mapping[str, str | int], command: Sequence[str]
) -> None:
    """Write everything that was measured as JSON: the machine, the command, and the seconds of each round.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "machine": dict(machine),
        "command": list(command),
        "comparisons": [
            {**asdict(comparison), "results": [_result(result) for result in comparison.results]}
            for comparison in comparisons
        ],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2))
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written: {error.strerror}") from None


def _result(result: Result) -> dict:
    difference = result.difference
    return {
        **asdict(result),
        "difference": "other shapes" if difference is not None and math.isinf(difference) else difference,
        "median_seconds": result.median_seconds,
        "speed_up": result.speed_up,
    }
