"""Deeper plain nets are harder to train; with shortcuts they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from resnet_det.explain.estimates import Estimate, combine, guessing_error, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.settings import Settings
from resnet_det.explain.verdicts import LEARNED, Claim, has_learned
from resnet_det.visualization import charts

KINDS = {"plain": "none", "residual": "pad"}


MORE, SHARE = 1.0, 0.25  # points of error that count, and the share of plain nets' that residual ones may get


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Curves of plain and residual nets of each depth."""
    recipe, nets = Recipe.of(settings), []
    for depth in settings.depths:
        for kind, shortcut in KINDS.items():
            trained = lab.train(Net(depth, shortcut), recipe, seed)
            nets.append({"kind": kind, "depth": depth, "curve": [asdict(point) for point in trained.curve]})
    probe = lab.probe(recipe)
    return {
        "nets": nets,
        "images_an_epoch": len(lab.data.images("train", settings.images)),
        "batch": settings.batch,
        "probed": len(probe),
        "guessing": guessing_error(probe.labels),
    }


def final(numbers: Numbers, kind: str, depth: int, what: str = "train_error") -> float:
    """An error in percent at the end of training."""
    return _curve(numbers, kind, depth)[-1][what]


def depths_of(numbers: Sequence[Numbers]) -> list[int]:
    return sorted({net["depth"] for net in numbers[0]["nets"]})


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the shallowest and the deepest net, by their training errors at the end."""
    shallow, deep = depths_of(numbers)[0], depths_of(numbers)[-1]

    def end(one: Numbers, kind: str, depth: int) -> Estimate:
        return share(final(one, kind, depth), one["probed"])

    def compare(*terms: tuple[float, str, int]) -> list[Estimate]:
        """Of each seed, a sum of training errors: weight, kind and depth."""
        return [combine(*((weight, end(one, kind, depth)) for weight, kind, depth in terms)) for one in numbers]

    return [
        has_learned(
            [end(one, "plain", shallow) for one in numbers],
            [one["guessing"] for one in numbers],
            f"plain-{shallow} is",
        ),
        Claim(
            f"plain-{deep} has more training error than plain-{shallow}",
            compare((1, "plain", deep), (-1, "plain", shallow)),
            above=MORE,
            below=0.0,
            unit="points",
        ),
        Claim(
            f"plain-{deep} has more training error than residual-{deep}",
            compare((1, "plain", deep), (-1, "residual", deep)),
            above=MORE,
            below=0.0,
            unit="points",
        ),
        Claim(
            f"from {shallow} to {deep} layers residual nets get less than a quarter of the training error that plain "
            "nets get",
            compare(
                (SHARE, "plain", deep),
                (-SHARE, "plain", shallow),
                (-1, "residual", deep),
                (1, "residual", shallow),
            ),
            unit="points",
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
            cells = [
                ", ".join(f"{final(one, kind, depth, what):.1f}" for one in numbers)
                for what in ("train_error", "test_error")
            ]
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
    rule="With the training errors at the end, measured without augmentation, beyond the margin: the deepest plain net "
    f"has {MORE:.0f} point more than the shallowest, and than the residual net of its depth; from the shallowest to "
    "the deepest, residual nets get less than a quarter of the points that plain nets get. A condition: the "
    f"shallowest plain net is {LEARNED:.0f} points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    least_depths=2,
    duration="an hour",
)
