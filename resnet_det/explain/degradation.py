"""Deeper plain nets are harder to train; with shortcuts they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab, Recipe
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import Settings
from resnet_det.explain.verdicts import Claim, guessing_error, resolution
from resnet_det.visualization import charts

KINDS = {"plain": "none", "residual": "pad"}


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Curves of plain and residual nets of each depth."""
    recipe, nets = Recipe.of(settings), []
    for depth in settings.depths:
        for kind, shortcut in KINDS.items():
            trained = lab.train(Net(depth, shortcut), recipe, seed)
            nets.append({"kind": kind, "depth": depth, "curve": [asdict(point) for point in trained.curve]})
    train = len(lab.data.images("train", settings.images))
    test = len(lab.data.images("test", settings.test_images))
    return {
        "nets": nets,
        "images_an_epoch": train,
        "batch": settings.batch,
        "probed": {"train": min(train, test), "test": test},
        "classes": len(lab.data.classes),
    }


def final(numbers: Numbers, kind: str, depth: int, what: str = "train_error") -> float | None:
    """An error in percent at the end of training; None if there is no such net."""
    found = [net for net in numbers["nets"] if (net["kind"], net["depth"]) == (kind, depth)]
    return found[0]["curve"][-1][what] if found and found[0]["curve"] else None


def depths_of(numbers: Sequence[Numbers]) -> list[int]:
    return sorted({net["depth"] for net in numbers[0]["nets"]})


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the shallowest and the deepest net, by their training errors at the end."""
    shallow, deep = depths_of(numbers)[0], depths_of(numbers)[-1]
    ends = {
        (kind, depth): over_seeds(numbers, lambda one, kind=kind, depth=depth: final(one, kind, depth))
        for kind in KINDS
        for depth in (shallow, deep)
    }
    error = sum(ends["plain", shallow]) / len(numbers)
    margin = resolution(error, numbers[0]["probed"]["train"])
    chance = guessing_error(numbers[0]["classes"])

    def minus(first: tuple[str, int], second: tuple[str, int]) -> list[float]:
        return [one - other for one, other in zip(ends[first], ends[second], strict=True)]

    return [
        Claim(
            f"plain-{shallow} has learned something: its training error is below that of guessing",
            [chance - value for value in ends["plain", shallow]],
            above=5.0,
            unit="points",
            is_condition=True,
        ),
        Claim(
            f"plain-{deep} has more training error than plain-{shallow}",
            minus(("plain", deep), ("plain", shallow)),
            above=margin,
            below=-margin,
            unit="points",
        ),
        Claim(
            f"shortcuts take training error from {deep} layers",
            minus(("plain", deep), ("residual", deep)),
            above=margin,
            below=-margin,
            unit="points",
        ),
        Claim(
            f"residual-{deep} does not train worse than residual-{shallow}",
            minus(("residual", shallow), ("residual", deep)),
            above=-margin,
            unit="points less",
        ),
    ]


def show(numbers: Sequence[Numbers]) -> Shown:
    """Both errors over epochs, plain beside residual, and the errors at the end."""
    drawn = {}
    an_epoch = numbers[0]["images_an_epoch"] / numbers[0]["batch"]
    for kind in KINDS:
        for what, title in (("train_error", "training error"), ("test_error", "test error")):
            series = {}
            for depth in depths_of(numbers):
                curves = [_curve(one, kind, depth) for one in numbers]
                series[f"{kind}-{depth}"] = [
                    (points[0]["iteration"] / an_epoch, [point[what] for point in points])
                    for points in zip(*curves, strict=True)
                ]
            name = f"degradation-{kind}-{what.replace('_', '-')}"
            chart = charts.draw_bands(name, series, ("epoch", f"{title}, %"))
            drawn[f"{kind.capitalize()} nets: {title}"] = chart.to_svg(f"{title} of {kind} nets over epochs")
    rows = []
    for kind in KINDS:
        for depth in depths_of(numbers):
            cells = []
            for what in ("train_error", "test_error"):
                values = over_seeds(
                    numbers, lambda one, kind=kind, depth=depth, what=what: final(one, kind, depth, what)
                )
                cells.append(", ".join(f"{value:.1f}" for value in values))
            rows.append((f"{kind}-{depth}", cells))
    return Shown(drawn, [Table("At the end, % of each seed", ("net", "training error", "test error"), rows)])


def _curve(numbers: Numbers, kind: str, depth: int) -> list[dict[str, Any]]:
    return next(net["curve"] for net in numbers["nets"] if (net["kind"], net["depth"]) == (kind, depth))


DEGRADATION = Experiment(
    name="degradation",
    title="Do deeper nets train worse, and do shortcuts mend it?",
    statement="A plain net that is made deeper has more error on the very images it is trained on. The same net with "
    "shortcuts has not.",
    sources=[
        Source(
            "On CIFAR-10 a plain net of 56 layers ends with more training error, and more test error, than one of 20; "
            "so it does not overfit, it is harder to optimise.",
            "arXiv 1512.03385, section 1, figure 1",
        ),
        Source(
            "Plain nets of 20 to 56 layers get worse with depth, residual ones of 20 to 110 better, in training and "
            "test error.",
            "arXiv 1512.03385, section 4.2, figure 6",
        ),
    ],
    rule="With the training errors at the end, measured without augmentation: the deepest plain net has more than the "
    "shallowest, and more than the residual net of its depth; the deepest residual net has not more than the "
    "shallowest. Differences count beyond what chance makes of so many images (95 %). A condition: the shallowest "
    "plain net is 5 points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    duration="an hour",
)
