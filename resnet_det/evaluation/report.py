"""report.html: one file with everything about a run, which needs neither a server nor the network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.bootstrap import CONFIDENCE, NUM_DRAWS, SEED
from resnet_det.evaluation.comparison import Comparison
from resnet_det.evaluation.curves import SCORES, mean_f1
from resnet_det.evaluation.errors import ERROR_TYPES
from resnet_det.evaluation.pictures import collect_images
from resnet_det.evaluation.text import SUCCESS_COLUMNS, describe_limit, describe_verdict, tabulate_success
from resnet_det.visualization import charts
from resnet_det.visualization.gallery import KINDS, Picture
from resnet_det.visualization.page import format_number, render_page

MAX_MATRIX_CLASSES = 20
MAX_CONFUSIONS = 30
TASK_NAMES = {"bbox": "Boxes", "segm": "Masks", "keypoints": "Keypoints"}


@dataclass(frozen=True)
class Lead:
    """What a page begins with: sentences and a table.

    Attributes:
        rows: the name of a row and its numbers; None or NaN where there is none.
    """

    title: str
    sentences: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def render_report(
    title: str,
    analyses: Sequence[Analysis],
    *,
    facts: Mapping[str, str],
    gallery: Mapping[str, Sequence[Picture]],
    comparisons: Sequence[Comparison] = (),
    differences: Sequence[Picture] = (),
    lead: Lead | None = None,
    config: str = "",
) -> str:
    """The page as HTML.

    Args:
        facts: what was evaluated, and with what: files, hashes, versions.
        gallery: pictures for each type of error; empty without images.
        comparisons: with another run, one for each of ``analyses``.
        differences: pictures of the images in which the two runs differ most.
        lead: what stands before all else.
        config: the text of the run's config.
    """
    pictures = [picture for group in gallery.values() for picture in group] + list(differences)
    images = collect_images(pictures)
    return render_page(
        "resnet_det.evaluation",
        "report.html",
        title=title,
        facts=facts,
        config=config,
        sections=[_section(analysis) for analysis in analyses],
        comparisons=comparisons,
        verdicts=[describe_verdict(comparison) for comparison in comparisons],
        gallery=gallery,
        differences=differences,
        lead=lead,
        images={uri: f"image-{number}" for number, uri in enumerate(images)},
        sizes=images,
        kinds=KINDS,
        error_types=ERROR_TYPES,
        task_names=TASK_NAMES,
        success_columns=SUCCESS_COLUMNS,
        bootstrap={"draws": NUM_DRAWS, "seed": SEED, "confidence": round(100 * CONFIDENCE)},
    )


def summarize_analysis(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis for evaluation.json; what was not computed is null."""
    classes = []
    for result, curve, interval in zip(analysis.classes, analysis.curves, analysis.class_intervals, strict=True):
        best = {key: getattr(curve, key) for key in ("best_threshold", "best_f1", "precision", "recall")}
        classes.append(asdict(result) | {"ap_low": interval.low, "ap_high": interval.high} | best)
    numbers = {
        "metrics": analysis.metrics,
        "max_detections": analysis.max_detections,
        "intervals": {name: asdict(interval) for name, interval in analysis.intervals.items()},
        "threshold": analysis.threshold.value,
        "threshold_source": analysis.threshold.source,
        "success": analysis.success.summarize(),
        "errors": {"cost": analysis.errors.cost, "count": analysis.errors.counts, "ap50": analysis.errors.base_ap},
        "calibration": analysis.calibration,
        "confusion": analysis.confusion.tolist(),
        "classes": classes,
    }
    return without_nan(numbers)


def without_nan(numbers: Any) -> Any:
    """The same as JSON knows it: null in place of NaN."""
    return json.loads(json.dumps(numbers), parse_constant=lambda _: None)


def write_numbers(analyses: Sequence[Analysis], facts: Mapping[str, str], path: Path) -> None:
    """Write the numbers of a run as JSON."""
    content = {"facts": dict(facts)} | {analysis.iou_type: summarize_analysis(analysis) for analysis in analyses}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _section(analysis: Analysis) -> dict[str, Any]:
    """What the page shows of one kind of evaluation."""
    task = analysis.iou_type
    names = [result.name for result in analysis.classes]
    return {
        "task": task,
        "limit": describe_limit(analysis),
        "analysis": analysis,
        "charts": _charts(analysis, names),
        "success": tabulate_success(analysis),
        "rows": list(zip(analysis.classes, analysis.curves, analysis.class_intervals, strict=True)),
        "confusions": _top_confusions(analysis.confusion, names),
        "labels": {
            f"{kind}-{task}-{place}": f"{result.name}: AP50 {format_number(result.ap50)}, AP {format_number(result.ap)}"
            for kind in ("pr", "f1")
            for place, result in enumerate(analysis.classes)
        },
    }


def _charts(analysis: Analysis, names: list[str]) -> dict[str, str]:
    task, metrics, errors = analysis.iou_type, analysis.metrics, analysis.errors
    known = [place for place, result in enumerate(analysis.classes) if result.objects]
    counts = errors.counts
    texts = [f"{errors.cost[name]:.1f}  ({counts[name]:,})" for name in ERROR_TYPES]
    svg = {
        "errors": charts.draw_bars(
            f"errors-{task}", list(ERROR_TYPES), list(errors.cost.values()), "AP50 lost  (number)", texts
        ).to_svg("What each type of error costs")
    }
    precision = analysis.precision
    mean = np.nanmean(precision[:, known], axis=1) if known else np.zeros(101)
    svg["pr"] = charts.draw_class_curves(
        f"pr-{task}", np.linspace(0, 1, 101), list(precision.T), mean, ("recall", "precision, IoU 0.5")
    ).to_svg("Precision over recall")
    f1 = [curve.f1 for curve in analysis.curves]
    svg["f1"] = charts.draw_class_curves(
        f"f1-{task}", SCORES, f1, mean_f1(analysis.curves), ("lowest score shown", "F1, IoU 0.5")
    ).to_svg("F1 over score")
    sizes = {"small": "s", "medium": "m", "large": "l"}
    groups = {kind: [metrics.get(f"{kind}{key}", math.nan) for key in sizes.values()] for kind in ("AP", "AR")}
    svg["sizes"] = charts.draw_groups(f"sizes-{task}", list(sizes), groups, "percent").to_svg("AP and AR by size")
    order = sorted(known, key=lambda place: -analysis.classes[place].ap)
    intervals = analysis.class_intervals
    if order:
        svg["classes"] = charts.draw_intervals(
            f"classes-{task}",
            [names[place] for place in order],
            [intervals[place].value for place in order],
            [intervals[place].low for place in order],
            [intervals[place].high for place in order],
            "AP with its confidence interval",
        ).to_svg("AP of each class")
    if len(analysis.confusion):
        shown, matrix = _largest_part(analysis.confusion)
        labels = [*names, "background"]
        svg["confusion"] = charts.draw_matrix(f"confusion-{task}", [labels[place] for place in shown], matrix).to_svg(
            "Confusion matrix"
        )
    bins = [one for one in analysis.calibration["bins"] if one["count"]]
    svg["calibration"] = charts.draw_reliability(
        f"calibration-{task}",
        [one["avg_confidence"] for one in bins],
        [one["avg_accuracy"] for one in bins],
        [one["count"] for one in bins],
    ).to_svg("Share of right detections over score")
    return svg


def _largest_part(confusion: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The classes that are confused most, background last, and their part of the matrix."""
    count = len(confusion) - 1
    if count <= MAX_MATRIX_CLASSES:
        return list(range(count + 1)), confusion
    inner = confusion[:count, :count]
    mixed = inner.sum(0) + inner.sum(1) - 2 * np.diag(inner)
    shown = sorted(np.argsort(-mixed, kind="stable")[:MAX_MATRIX_CLASSES].tolist())
    return [*shown, count], confusion[np.ix_([*shown, count], [*shown, count])]


def _top_confusions(confusion: np.ndarray, names: list[str]) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions of two classes: is, detected as, how often, share of the objects in percent."""
    inner = confusion[:-1, :-1].copy() if len(confusion) else confusion
    np.fill_diagonal(inner, 0)
    order = np.argsort(-inner, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [tuple(int(i) for i in np.unravel_index(flat, inner.shape)) for flat in order] if inner.size else []
    return [
        (names[row], names[column], int(inner[row, column]), 100 * inner[row, column] / confusion[row].sum())
        for row, column in pairs
        if inner[row, column]
    ]
