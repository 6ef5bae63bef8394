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

_SHOWN = ("AP", "AP50", "AP75", "CSI50")
_COLUMNS = ("fold", "trained on", "tested on", "groups")

Means = Mapping[str, Mapping[str, FoldMean]]


def make_lead(results: Sequence[FoldResult], means: Means, *, grouped: bool) -> Lead:
    """The folds and their mean, and how these are to be read."""
    columns, rows = _tabulate(results, means)
    percent = round(100 * CONFIDENCE)
    sentences = [
        f"{len(results)} detectors, each tested on the images that it was not trained on. {_tell_means(means)}",
        f"The interval of the mean is a t interval ({percent} %) over the folds, whose variance is corrected for the "
        "training images that they share (Nadeau and Bengio, 2003). It is for a detector that is trained on as many "
        "images as in a fold, and as wide as few folds make it.",
        "All numbers below are of the predictions of all folds together. Scores of different detectors stand in one "
        "order there, so that this AP may be lower than the mean of the folds; their intervals are of drawing other "
        "images, and not of training again.",
    ]
    if grouped:
        sentences.append("Images of a group resemble each other: intervals of drawing single images are too narrow.")
    return Lead(f"Cross-validation over {len(results)} folds", sentences, columns, rows)


def format_folds(results: Sequence[FoldResult], means: Means, pooled: Sequence[Analysis]) -> str:
    """The folds, their mean and the pooled AP for a terminal."""
    columns, rows = _tabulate(results, means)
    lines = [f"{one.iou_type}, all folds together: AP {format_interval(one.intervals['AP'])}" for one in pooled]
    table = tabulate([[None if value != value else value for value in row] for row in rows], columns, floatfmt=".1f")
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
            | {"deviation": one.deviation, "values": list(one.values)}
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


def _tell_means(means: Means) -> str:
    told = [f"{TASK_NAMES[task]}: AP {format_interval(of_task['AP'].interval)}" for task, of_task in means.items()]
    return "; ".join(told) + "."


def _tabulate(results: Sequence[FoldResult], means: Means) -> tuple[list[str], list[list[Any]]]:
    shown = [(task, name) for task, of_task in means.items() for name in _SHOWN if name in of_task]
    columns = [*_COLUMNS, *(f"{TASK_NAMES[task].lower()} {name}" for task, name in shown)]
    rows: list[list[Any]] = [
        [str(one.fold.number), one.fold.train_images, one.fold.test_images, one.fold.test_groups]
        + [one.metrics[task][name] for task, name in shown]
        for one in results
    ]
    of_shown = [means[task][name] for task, name in shown]
    for name, values in (
        ("mean", [one.interval.value for one in of_shown]),
        ("from", [one.interval.low for one in of_shown]),
        ("to", [one.interval.high for one in of_shown]),
        ("standard deviation", [one.deviation for one in of_shown]),
    ):
        rows.append([name, None, None, None, *values])
    return columns, rows
