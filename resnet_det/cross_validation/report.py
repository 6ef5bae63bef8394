"""What is said of all folds: the first part of report.html, the table for the terminal, the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from resnet_det.cross_validation.summary import FoldMean
from resnet_det.cross_validation.training import FoldResult
from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.bootstrap import CONFIDENCE
from resnet_det.evaluation.files import hash_file
from resnet_det.evaluation.report import TASK_NAMES, Lead
from resnet_det.evaluation.text import format_interval
from resnet_det.visualization.page import format_number

_SHOWN = ("AP", "AP50", "AP75")  # no CSI50: its score threshold is the best one on the images of the fold itself
_COLUMNS = ("fold", "trained on", "tested on", "groups")

Means = Mapping[str, Mapping[str, FoldMean]]


def make_lead(results: Sequence[FoldResult], means: Means, *, grouped: bool, rare_classes: Sequence[str]) -> Lead:
    """The folds and their mean, and how these are to be read; ``rare_classes`` have all objects in a single group."""
    columns, rows = _tabulate(results, means)
    percent = round(100 * CONFIDENCE)
    sentences = [
        f"{len(results)} detectors, each tested on the images that it was not trained on. {_tell_means(means)}",
        f"The interval of the mean is a t interval ({percent} %) over the folds, whose variance is corrected for the "
        "training images that they share (Nadeau and Bengio, 2003). It is for a detector that is trained on "
        "(K - 1)/K of the images, and as wide as few folds make it.",
        "All numbers below are of the predictions of all folds together. Scores of different detectors stand in one "
        "order there, so that this AP may be lower than the mean of the folds; their intervals are of drawing other "
        "images, and not of training again.",
    ]
    if any(one.folds < len(results) for of_task in means.values() for one in of_task.values()):
        sentences.append(
            "Where a fold has no objects to compute a number of, the mean is of the other folds; cross_validation.json "
            "has the number of folds of each mean."
        )
    if rare_classes:
        sentences.append(
            f"All objects of {', '.join(rare_classes)} are in one image or group: no fold both learns and tests that."
        )
    if grouped:
        sentences.append("Images of a group resemble each other: intervals of drawing single images are too narrow.")
    return Lead(f"Cross-validation over {len(results)} folds", sentences, columns, rows)


def format_folds(results: Sequence[FoldResult], means: Means, pooled: Sequence[Analysis]) -> str:
    """The folds, their mean and the pooled AP for a terminal."""
    columns, rows = _tabulate(results, means)
    lines = [f"{one.iou_type}, all folds together: AP {format_interval(one.intervals['AP'])}" for one in pooled]
    cells = [["" if value is None else _format_cell(value) for value in row] for row in rows]
    aligned = ("left", *["right"] * (len(columns) - 1))
    table = tabulate(cells, columns, disable_numparse=True, colalign=aligned)
    return "\n".join([table, "", f"Mean over folds: {_tell_means(means)}", *lines])


def summarize(results: Sequence[FoldResult], means: Means) -> dict[str, Any]:
    """For JSON."""
    folds = [
        {
            **{key: value for key, value in asdict(result.fold).items() if key not in ("train", "test")},
            "folder": str(result.folder),
            "weights": result.weights,
            "metrics": result.metrics,
        }
        for result in results
    ]
    mean = {
        task: {
            name: {"mean": one.interval.value, "low": one.interval.low, "high": one.interval.high}
            | {"deviation": one.deviation, "folds": one.folds, "values": list(one.values)}
            for name, one in of_task.items()
        }
        for task, of_task in means.items()
    }
    return {"folds": folds, "mean": mean}


def describe(results: Sequence[FoldResult], group_by: str) -> dict[str, str]:
    """What the report is about: the weights of each fold, and what was kept together."""
    facts = {
        f"fold {result.fold.number}": f"{result.folder / result.weights}, sha256 "
        f"{hash_file(result.folder / result.weights)}"
        for result in results
    }
    return facts | ({"grouped by": group_by} if group_by else {})


def _format_cell(value: str | float) -> str:
    return format_number(value) if isinstance(value, float) else str(value)


def _tell_means(means: Means) -> str:
    told = [f"{TASK_NAMES[task]}: AP {format_interval(of_task['AP'].interval)}" for task, of_task in means.items()]
    return "; ".join(told) + "."


def _tabulate(results: Sequence[FoldResult], means: Means) -> tuple[list[str], list[list[Any]]]:
    shown = [(task, name) for task, of_task in means.items() for name in _SHOWN if name in of_task]
    columns = [*_COLUMNS, *(f"{TASK_NAMES[task].lower()} {name}" for task, name in shown)]
    of_shown = [means[task][name] for task, name in shown]
    rows: list[list[Any]] = [
        [str(one.fold.number), one.fold.train_images, one.fold.test_images, one.fold.test_groups]
        + [mean.values[place] for mean in of_shown]
        for place, one in enumerate(results)
    ]
    for name, values in (
        ("mean", [one.interval.value for one in of_shown]),
        ("from", [one.interval.low for one in of_shown]),
        ("to", [one.interval.high for one in of_shown]),
        ("standard deviation", [one.deviation for one in of_shown]),
        ("folds with a value", [one.folds for one in of_shown]),
    ):
        rows.append([name, None, None, None, *values])
    return columns, rows
