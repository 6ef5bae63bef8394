"""counts.csv, counts.json and counts.html: what was counted, and how well it agrees with the truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from resnet_det.evaluation.count_files import QUANTITIES, Counting, tabulate_counts
from resnet_det.evaluation.report import without_nan
from resnet_det.visualization import charts
from resnet_det.visualization.page import render_page

OUTPUT_NAMES = ("counts.csv", "counts.json", "counts.html")
MAX_DRAWN = 12  # classes with charts, those with the most objects
COLUMNS = ("class", "score", "images", "true mean", "bias", "MAE", "relative error", "R²", "limits from", "to")
TITLES = {"count": "Count", "total_area_px2": "Total area, px²", "mean_area_px2": "Mean area, px²"}


def write_counting(
    counting: Counting, output: Path, facts: Mapping[str, str], *, pixel_size_um: float | None = None
) -> list[Path]:
    """Write counts.csv and counts.json and, where there is a truth to compare with, counts.html. Returns the files."""
    rows = list(tabulate_counts(counting, pixel_size_um))
    table, numbers, page = (output / name for name in OUTPUT_NAMES)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    facts = {**facts, **describe_counting(counting)}
    content = {"facts": facts, "pixel_size_um": pixel_size_um, "classes": _summarize(counting)}
    numbers.write_text(json.dumps(without_nan(content), indent=1) + "\n", encoding="utf-8")
    if counting.true is None:
        return [table, numbers]
    page.write_text(_render(counting, facts), encoding="utf-8")
    return [table, numbers, page]


def describe_counting(counting: Counting) -> dict[str, str]:
    """What the numbers depend on."""
    facts = {
        "score threshold": counting.source,
        "areas": "of masks" if counting.by_mask else "of boxes",
    }
    hidden = int((~counting.countable).sum())
    if counting.true is not None and hidden:
        facts["not compared"] = f"{hidden} counts of an image and class with crowd regions, whose number is not known"
    return facts


def format_counting(counting: Counting) -> str:
    """The agreement of each class as tables for a terminal; without a truth the counts of each class."""
    facts = "\n".join(f"{name}: {text}" for name, text in describe_counting(counting).items())
    if counting.true is None:
        totals = zip(counting.truth.class_names, counting.thresholds, counting.found.count.sum(0).tolist(), strict=True)
        return f"{facts}\n\n{tabulate(list(totals), ('class', 'score', 'objects'), floatfmt='.2f')}"
    tables = [
        f"{TITLES[quantity]}\n{tabulate(_rows(counting, quantity), COLUMNS, floatfmt=_FORMATS, missingval='-')}"
        for quantity in QUANTITIES
    ]
    return "\n\n".join([facts, *tables])


_FORMATS = ("", ".2f", "d", ".2f", "+.2f", ".2f", ".3f", ".3f", "+.2f", "+.2f")


def _rows(counting: Counting, quantity: str) -> list[list[Any]]:
    rows = []
    for name, threshold, by_quantity in zip(
        counting.truth.class_names, counting.thresholds, counting.agreements, strict=True
    ):
        one = by_quantity[quantity]
        values = (one.true_mean, one.bias, one.mae, one.relative_error, one.r2, one.low, one.high)
        rows.append([name, threshold, one.pairs, *(None if value != value else value for value in values)])
    return rows


def _summarize(counting: Counting) -> list[dict[str, Any]]:
    classes = []
    for place, name in enumerate(counting.truth.class_names):
        entry = {"name": name, "score_threshold": counting.thresholds[place]}
        entry["objects"] = int(counting.found.count[:, place].sum())
        if counting.true is not None:
            entry["true_objects"] = int(counting.true.count[:, place].sum())
            entry |= {quantity: asdict(one) for quantity, one in counting.agreements[place].items()}
        classes.append(entry)
    return classes


def _render(counting: Counting, facts: Mapping[str, str]) -> str:
    order = np.argsort(-counting.true.count.sum(0), kind="stable")[:MAX_DRAWN]
    return render_page(
        "resnet_det.evaluation",
        "counts.html",
        title=f"Counts on {len(counting.truth.images):,} images",
        facts=facts,
        columns=COLUMNS,
        tables={TITLES[quantity]: _rows(counting, quantity) for quantity in QUANTITIES},
        classes={
            counting.truth.class_names[place]: _draw(counting, int(place))
            for place in order
            if counting.agreements[place]["count"].pairs
        },
        num_classes=len(counting.truth.categories),
    )


def _draw(counting: Counting, place: int) -> list[str]:
    drawn = []
    for quantity, unit in (("count", "count"), ("total_area_px2", "total area, px²")):
        pairs, agreement = counting.pairs(place, quantity), counting.agreements[place][quantity]
        key = f"{quantity.replace('_', '-')}-{place}"
        limits = (agreement.bias, agreement.low, agreement.high)
        scatter = charts.draw_identity(f"identity-{key}", *pairs, (f"true {unit}", f"predicted {unit}"))
        bland = charts.draw_bland_altman(f"agreement-{key}", *pairs, limits, unit)
        drawn += [scatter.to_svg(f"Predicted over true {unit}"), bland.to_svg(f"Differences of {unit}")]
    return drawn
