"""The numbers of an evaluation as tables for a terminal or a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.bootstrap import Interval
from resnet_det.evaluation.coco import ClassResult
from resnet_det.evaluation.comparison import Comparison
from resnet_det.evaluation.errors import ERROR_TYPES
from resnet_det.evaluation.matching import IOU_THRESHOLDS

SUCCESS_COLUMNS = (*(f"{threshold:.2f}" for threshold in IOU_THRESHOLDS), "mean")


def format_metrics(metrics: Mapping[str, float]) -> str:
    """A table of one row."""
    return tabulate([metrics.values()], list(metrics), tablefmt="pipe", floatfmt=".3f", numalign="center")


def format_classes(classes: Sequence[ClassResult], *, columns: int = 3) -> str:
    """A table of the AP of each class, several in a row."""
    cells = [cell for result in classes for cell in (result.name, result.ap)]
    rows = [cells[start : start + 2 * columns] for start in range(0, len(cells), 2 * columns)]
    return tabulate(rows, ["category", "AP"] * columns, tablefmt="pipe", floatfmt=".3f", numalign="left")


def format_analysis(analysis: Analysis) -> str:
    """COCO's numbers with their intervals, the classes, and what each type of error costs."""
    intervals = [f"{name} {format_interval(interval)}" for name, interval in analysis.intervals.items()]
    headers = ("class", "images", "objects", "detections", "AP", "AP50", "AP75", "AR", "best score", "F1")
    rows = [
        (
            result.name,
            result.images,
            result.objects,
            result.detections,
            result.ap,
            result.ap50,
            result.ap75,
            result.ar,
            curve.best_threshold,
            100 * curve.best_f1,
        )
        for result, curve in zip(analysis.classes, analysis.curves, strict=True)
    ]
    rows = [[None if value != value else value for value in row] for row in rows]  # NaN becomes a dash
    formats = ("", "d", "d", "d", ".1f", ".1f", ".1f", ".1f", ".2f", ".1f")
    errors = analysis.errors
    costs = [(name, errors.cost[name], errors.counts[name], text) for name, text in ERROR_TYPES.items()]
    return "\n\n".join(
        [
            f"{analysis.iou_type}: {', '.join(intervals)}",
            *([analysis.why_no_interval] if analysis.why_no_interval else []),
            format_metrics(analysis.metrics),
            tabulate(rows, headers, floatfmt=formats, missingval="-"),
            tabulate(costs, ("error", "AP50 lost", "number", "what it is"), floatfmt=".1f"),
            f"TP / (TP + FP + FN) by IoU, of detections with a score of at least {analysis.threshold}",
            tabulate(tabulate_success(analysis), ("over", *SUCCESS_COLUMNS), floatfmt=".1f", missingval="-"),
            *describe_limit(analysis),
        ]
    )


def tabulate_success(analysis: Analysis) -> list[list[str | float | None]]:
    """TP / (TP + FP + FN) in percent by ``SUCCESS_COLUMNS``: of all objects together, and the mean over images."""
    success = analysis.success
    rows = {"all objects": success.pooled, f"mean of {success.images} images": success.image_mean}
    return [
        [name, *(None if value != value else value for value in [*values.tolist(), float(values.mean())])]
        for name, values in rows.items()
    ]


def describe_limit(analysis: Analysis) -> list[str]:
    """What the limit of detections costs, in words; nothing where it costs nothing."""
    lines = [str(analysis.limit_cost)] if analysis.limit_cost else []
    if analysis.errors.beyond_limit:
        lines.append(
            f"Of the missed objects {analysis.errors.beyond_limit:,} are found by detections beyond the limit of "
            f"{analysis.max_detections}"
        )
    return lines


def format_comparison(comparison: Comparison) -> str:
    """The difference of two runs, and whether it may be chance."""
    difference = comparison.difference
    return (
        f"{comparison.first.iou_type}: AP of the other run {comparison.second.metrics['AP']:.2f}, which is "
        f"{format_interval(difference, '+.2f')}: "
        f"{describe_verdict(comparison)}\n"
        f"Mistakes of the other run are counted at a score of at least {comparison.second.threshold}"
    )


def format_interval(interval: Interval, spec: str = ".1f") -> str:
    """A value and its interval; the value alone where there is none."""
    value, low, high = (format(number, spec) for number in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})" if interval.is_known else value


def describe_verdict(comparison: Comparison) -> str:
    """What the paired interval says of the difference, or why it says nothing."""
    if comparison.first.why_no_interval:
        return f"no verdict, {comparison.first.why_no_interval}"
    return "more than chance" if comparison.is_clear else "it may be chance"
