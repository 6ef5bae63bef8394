"""Charts as SVG for a page: they take the page's text colour, light or dark, and need no script.

Why matplotlib's SVG and not a charting script: a chart is 5 to 100 kB instead of a library of several MB, prints
sharply, and shows at once on a phone.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color/).
OKABE_ITO = {
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}
_LEGEND_COLUMNS = 4
_TEXT, _GRID, _THIN = "#010203", "#040506", "#070809"  # stand for the colours of the page


class Chart:
    """A figure of one panel, to be drawn on in a ``with`` block and then written as SVG."""

    def __init__(self, name: str, *, width_in: float = 4.8, height_in: float = 3.2) -> None:
        """
        Args:
            name: letters and hyphens, different for each chart of a page.
        """
        self.name, self.size_in = name, (width_in, height_in)

    @contextmanager
    def draw(self) -> Iterator[Axes]:
        """The axes to draw on, in the style of the page."""
        values = {"text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT}
        values |= {"axes.edgecolor": _TEXT, "grid.color": _GRID, "axes.facecolor": "none", "figure.facecolor": "none"}
        values |= {"font.size": 9, "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.6}
        values |= {"svg.fonttype": "none", "svg.hashsalt": self.name, "font.family": "sans-serif"}
        with mpl.rc_context(values):
            figure = Figure(figsize=self.size_in, layout="constrained")
            axes: Axes = figure.subplots()
            axes.spines[["top", "right"]].set_visible(False)
            yield axes
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        text = buffer.getvalue()
        self._svg = text[text.index("<svg") :]

    def to_svg(self, title: str) -> str:
        """The chart as an element of a page, with ``title`` for those who cannot see it."""
        text = self._svg
        for stand_in, colour in ((_TEXT, "currentColor"), (_GRID, "var(--grid)"), (_THIN, "var(--thin)")):
            text = text.replace(stand_in, colour)
        text = text.replace("<svg", f'<svg class="chart" role="img" aria-label="{html.escape(title)}"', 1)
        return text.replace('id="figure_1"', f'id="{self.name}"')


def draw_class_curves(
    name: str, x: np.ndarray, curves: Sequence[np.ndarray], mean: np.ndarray, labels: tuple[str, str]
) -> Chart:
    """A thin line for each class, with the id ``<name>-<place>``, and a thick one for their mean."""
    chart = Chart(name)
    with chart.draw() as axes:
        for place, curve in enumerate(curves):
            if np.isfinite(curve).any():
                axes.plot(x, curve, color=_THIN, linewidth=0.9, gid=f"{name}-{place}")
        axes.plot(x, mean, color=OKABE_ITO["blue"], linewidth=2.5, gid=f"{name}-mean")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[0], ylabel=labels[1])
    return chart


def draw_bars(name: str, names: Sequence[str], values: Sequence[float], label: str, texts: Sequence[str]) -> Chart:
    """Horizontal bars from the top, each with a text at its end."""
    chart = Chart(name, height_in=0.6 + 0.32 * len(names))
    with chart.draw() as axes:
        axes.barh(range(len(names)), values, color=OKABE_ITO["blue"], height=0.65)
        for place, (value, text) in enumerate(zip(values, texts, strict=True)):
            axes.annotate(text, (value, place), xytext=(3, 0), textcoords="offset points", va="center")
        _name_rows(axes, names)
        axes.set(xlabel=label, xlim=(0, 1.25 * max([*values, 1e-9])))
    return chart


def draw_intervals(
    name: str, names: Sequence[str], values: Sequence[float], low: Sequence[float], high: Sequence[float], label: str
) -> Chart:
    """A point with an error bar for each name, from the top."""
    chart = Chart(name, height_in=0.7 + 0.19 * len(names))
    with chart.draw() as axes:
        places = np.arange(len(names))
        axes.hlines(places, low, high, color=OKABE_ITO["sky"], linewidth=3)
        axes.plot(values, places, "o", color=OKABE_ITO["blue"], markersize=4)
        _name_rows(axes, names)
        axes.set(xlabel=label)
    return chart


def draw_groups(name: str, names: Sequence[str], groups: dict[str, Sequence[float]], label: str) -> Chart:
    """Bars side by side, with a legend; a value that is NaN has none."""
    chart = Chart(name, height_in=2.6)
    with chart.draw() as axes:
        width = 0.8 / len(groups)
        colours = list(OKABE_ITO.values())[3:]
        for number, (group, values) in enumerate(groups.items()):
            places = np.arange(len(names)) + (number - (len(groups) - 1) / 2) * width
            hatch = "//" if number else None
            bars = axes.bar(places, np.nan_to_num(values), width, label=group, color=colours[number], hatch=hatch)
            axes.bar_label(bars, ["-" if np.isnan(value) else f"{value:.1f}" for value in values], padding=2)
        axes.set_xticks(range(len(names)), names)
        axes.set(ylabel=label, ylim=(0, 112))
        axes.grid(visible=False, axis="x")
        axes.legend(frameon=False, ncols=len(groups), loc="upper left", bbox_to_anchor=(0, 1.16))
    return chart


def draw_matrix(name: str, names: Sequence[str], matrix: np.ndarray) -> Chart:
    """Shares of each row as shades, with their percentages; columns are named by the same names."""
    chart = Chart(name, width_in=max(4.8, 0.42 * len(names) + 1.5), height_in=max(3.6, 0.36 * len(names) + 1.3))
    with chart.draw() as axes:
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors=_GRID, linewidth=0.3)
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            colour = "white" if share[row, column] > 0.55 else "black"
            text = f"{100 * share[row, column]:.0f}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=7.5)
        axes.grid(visible=False)
        centres = np.arange(len(names)) + 0.5
        axes.set_xticks(centres, names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(centres, names, parse_math=False)
        axes.invert_yaxis()
        axes.set(xlabel="detected as", ylabel="is")
    return chart


def draw_reliability(name: str, confidence: Sequence[float], accuracy: Sequence[float], count: Sequence[int]) -> Chart:
    """The share of right detections over their mean score; the area of a point tells how many they are."""
    chart = Chart(name)
    with chart.draw() as axes:
        axes.plot([0, 1], [0, 1], color=_THIN, linestyle="--", linewidth=1)
        area = 12 + 180 * np.asarray(count) / max([*count, 1])
        axes.plot(confidence, accuracy, color=OKABE_ITO["blue"], linewidth=1.2)
        axes.scatter(confidence, accuracy, s=area, color=OKABE_ITO["blue"], alpha=0.6, linewidths=0)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="share of right detections")
    return chart


def draw_identity(name: str, true: np.ndarray, measured: np.ndarray, labels: tuple[str, str]) -> Chart:
    """Measured over true numbers, with the line on which they are the same; the area of a point tells how many
    pairs lie there."""
    chart = Chart(name)
    with chart.draw() as axes:
        _draw_pairs(axes, true, measured)
        end = float(max(true.max(), measured.max(), 1)) * 1.05
        axes.plot([0, end], [0, end], color=_THIN, linestyle="--", linewidth=1)
        axes.set(xlim=(-0.03 * end, end), ylim=(-0.03 * end, end), xlabel=labels[0], ylabel=labels[1])
    return chart


def draw_bland_altman(
    name: str, true: np.ndarray, measured: np.ndarray, limits: tuple[float, float, float], label: str
) -> Chart:
    """Measured minus true numbers over the mean of both (Bland and Altman, Lancet 1986).

    Args:
        limits: the bias, and the lower and upper limit of agreement.
    """
    chart = Chart(name)
    with chart.draw() as axes:
        _draw_pairs(axes, (true + measured) / 2, measured - true)
        axes.axhline(0, color=_THIN, linewidth=1)
        for value, dashes in zip(limits, ("-", "--", "--"), strict=True):
            if np.isfinite(value):
                axes.axhline(value, color=OKABE_ITO["vermilion"], linestyle=dashes, linewidth=1.4)
                place = (1.0, value)
                axes.annotate(
                    f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.2f}",
                    place,
                    (-2, 2),
                    axes.get_yaxis_transform(),
                    "offset points",
                    ha="right",
                    va="bottom",
                )
        axes.set(xlabel=f"mean of both, {label}", ylabel="predicted minus true")
        axes.margins(x=0.1, y=0.15)
    return chart


def draw_front(
    name: str,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    front: Sequence[int],
    labels: tuple[str, str],
) -> Chart:
    """Named points with vertical error bars, and the staircase that no point is beyond.

    Args:
        bars: lower and upper end of each error bar.
        front: places of the points on the staircase, from the left.
        labels: of the axes.
    """
    chart = Chart(name, height_in=3.4)
    with chart.draw() as axes:
        x, y = np.array(points, dtype=float).T
        axes.step(x[front], y[front], where="post", color=OKABE_ITO["sky"], linewidth=1.6, gid=f"{name}-front")
        ends = np.array(bars, dtype=float)
        axes.vlines(x, ends[:, 0], ends[:, 1], color=_THIN, linewidth=1.2)
        for place, text in enumerate(names):
            is_best = place in front
            axes.plot(
                x[place],
                y[place],
                "o",
                color=OKABE_ITO["blue"] if is_best else "none",
                markeredgecolor=OKABE_ITO["blue"],
                markeredgewidth=1.5,
                markersize=6,
            )
            # Beyond the staircase there is nothing but the error bar.
            offset, side = ((-6, 4), ("right", "bottom")) if is_best else ((6, -4), ("left", "top"))
            axes.annotate(
                text, (x[place], y[place]), offset, textcoords="offset points", ha=side[0], va=side[1], parse_math=False
            )
        axes.margins(x=0.2, y=0.1)
        axes.set(xlabel=labels[0], ylabel=labels[1])
    return chart


def draw_lines(
    name: str, series: dict[str, Sequence[tuple[float, float]]], labels: tuple[str, str], *, marker: str = ""
) -> Chart:
    """A line for each name, told apart by colour and dashes, with a legend above."""
    chart = Chart(name, height_in=2.9 + 0.2 * ((len(series) - 1) // _LEGEND_COLUMNS))
    with chart.draw() as axes:
        for number, (text, line) in enumerate(series.items()):
            colour, dashes = _style(number)
            x, y = zip(*line, strict=True)
            axes.plot(x, y, color=colour, linestyle=dashes, marker=marker, markersize=4, label=text)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        _add_legend(axes, _LEGEND_COLUMNS)
    return chart


def draw_bands(
    name: str,
    series: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    labels: tuple[str, str],
    *,
    log_x: bool = False,
    log_y: bool = False,
    marker: str = "",
    columns: int = _LEGEND_COLUMNS,
) -> Chart:
    """Lines as :func:`draw_lines`' through the means, each in a band from the least to the greatest.

    Args:
        series: by name, for each x what was measured there, such as the values of several seeds.
        columns: of the legend.
    """
    chart = Chart(name, height_in=2.9 + 0.2 * ((len(series) - 1) // columns))
    with chart.draw() as axes:
        for number, (text, line) in enumerate(series.items()):
            colour, dashes = _style(number)
            x, values = zip(*line, strict=True)
            array = np.array(values, dtype=float)
            axes.plot(x, array.mean(1), color=colour, linestyle=dashes, marker=marker, markersize=4, label=text)
            axes.fill_between(x, array.min(1), array.max(1), color=colour, alpha=0.25, linewidth=0)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if log_x:
            axes.set_xscale("log")
        elif all(isinstance(x, int) for line in series.values() for x, _ in line):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if log_y:
            axes.set_yscale("log")
        _add_legend(axes, columns)
    return chart


def _draw_pairs(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    points, counts = np.unique(np.stack([x, y], 1), axis=0, return_counts=True)
    area = np.minimum(16 * counts, 250)
    axes.scatter(*points.T, s=area, color=OKABE_ITO["blue"], alpha=0.6, linewidths=0)


def _style(number: int) -> tuple[str, str]:
    """Colour and dashes of the line of that number."""
    colours = [OKABE_ITO[key] for key in ("blue", "vermilion", "green", "purple", "orange", "sky")]
    return colours[number % len(colours)], ("-", "--", ":", "-.")[(number + number // len(colours)) % 4]


def _add_legend(axes: Axes, columns: int) -> None:
    legend = axes.legend(frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
