"""What more depth brings, and what it costs: less and less for the same price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from resnet_det.analysis.cost import count_macs
from resnet_det.explain.detectors import read_detectors
from resnet_det.explain.estimates import Estimate, combine, fit_slope, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import SIZE_PX, Recipe
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.verdicts import ONCE, Claim, worst_of
from resnet_det.visualization import charts

TOLERANCE = 1.0  # points of accuracy or AP by which a single step may go against the statement
_AXES = {"depth": "layers", "parameters_m": "million parameters", "mmacs": "million multiply-adds an image"}


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Test errors of residual nets of each depth, with parameters and multiply-adds."""
    recipe, nets = Recipe.of(settings), []
    for depth in settings.depths:
        trained = lab.train(Net(depth), recipe, seed)
        nets.append({"depth": depth, **measure_cost(trained.net, len(lab.data.classes))})
        nets[-1] |= {"test_error": trained.curve[-1].test_error, "train_error": trained.curve[-1].train_error}
    tested = len(lab.data.images("test", settings.test_images))
    return {"nets": nets, "tested": tested, "detectors": read_detectors(lab.detectors) if lab.detectors else []}


def measure_cost(net: Net, num_classes: int) -> dict[str, float]:
    """Millions of parameters and of multiply-adds of an image."""
    model = net.build(num_classes).eval()
    return {
        "parameters_m": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        "mmacs": count_macs(model, torch.zeros(1, 3, SIZE_PX, SIZE_PX)) / 1e6,
    }


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of nets, by their test errors; and of detectors, by their AP."""
    nets, detectors = numbers[0]["nets"], numbers[0]["detectors"]
    claims = judge_steps(
        "residual nets",
        [f"residual-{net['depth']}" for net in nets],
        [[share(100 - net["test_error"], one["tested"]) for net in one["nets"]] for one in numbers],
        [net["mmacs"] / 100 for net in nets],
        "points for 100 million multiply-adds",
    )
    if len(detectors) < 3:
        return claims
    found = judge_steps(
        "detectors",
        [one["name"] for one in detectors],
        [[Estimate(one["ap"], one["deviation"]) for one in detectors]],
        [one["gmacs"] for one in detectors],
        "points of AP for a GMAC",
    )
    return [*claims, *(replace(claim, repeats=ONCE) for claim in found)]


def judge_steps(
    what: str, names: Sequence[str], accuracies: Sequence[Sequence[Estimate]], costs: Sequence[float], price: str
) -> list[Claim]:
    """Whether more depth brings more, and each step less for what it costs: by least-squares lines through all depths,
    and by single steps, none of which may go against it by more than a point.

    Args:
        what: is compared, in words.
        names: by depth.
        accuracies: of each seed by depth, in points; the cheapest first.
        costs: by depth.
        price: unit of what a step brings by its cost.
    """
    steps = list(pairwise(range(len(costs))))
    of_step = [{start: -1.0, end: 1.0} for start, end in steps]
    of_price = [
        {place: weight / (costs[end] - costs[start]) for place, weight in weights.items()}
        for (start, end), weights in zip(steps, of_step, strict=True)
    ]
    by_cost = dict(enumerate(fit_slope([math.log2(cost) for cost in costs])))

    def no_step(text: str, sums: Sequence[Mapping[int, float]]) -> Claim:
        """The worst of the steps, each over all seeds; ``sums`` are of those that end at the last depths."""
        ends = list(pairwise(names))[-len(sums) :]
        return worst_of(
            [
                Claim(
                    f"{text}: the worst one, from {start} to {end}",
                    [_sum(weights, seed) for seed in accuracies],
                    above=-TOLERANCE,
                    unit="points",
                    comparisons=len(sums),
                )
                for (start, end), weights in zip(ends, sums, strict=True)
            ]
        )

    claims = [
        Claim(
            f"{what} get more accurate with depth: by the line through all depths",
            [_sum(by_cost, seed) for seed in accuracies],
            unit="points for each doubling of the cost",
        ),
        no_step(f"no step to deeper {what} takes more than {TOLERANCE:.0f} point of accuracy away", of_step),
    ]
    less = f"for what it costs, a step to deeper {what} brings less than the one before"
    if len(of_price) < 2:
        return [*claims, Claim(f"{less} (three depths or more tell)", ())]
    # What a step would bring at the price of the one before, less what it brings: in points, as the tolerance is.
    falls = [
        _add((costs[end] - costs[start], before), (-1, brought))
        for before, brought, (start, end) in zip(of_price[:-1], of_step[1:], steps[1:], strict=True)
    ]
    slope = _add(*((-weight, one) for weight, one in zip(fit_slope(range(len(of_price))), of_price, strict=True)))
    return [
        *claims,
        Claim(
            f"{less}: by the line through all steps",
            [_sum(slope, seed) for seed in accuracies],
            unit=price,
            digits=3,
        ),
        no_step(
            f"no step to deeper {what} brings {TOLERANCE:.0f} point more than at the price of the step before", falls
        ),
    ]


def _add(*terms: tuple[float, Mapping[int, float]]) -> dict[int, float]:
    """A weighted sum of weights by depth."""
    total: dict[int, float] = {}
    for factor, weights in terms:
        for place, weight in weights.items():
            total[place] = total.get(place, 0.0) + factor * weight
    return total


def _sum(weights: Mapping[int, float], accuracies: Sequence[Estimate]) -> Estimate:
    return combine(*((weight, accuracies[place]) for place, weight in weights.items()))


def show(numbers: Sequence[Numbers]) -> Shown:
    """Test error by depth, parameters and multiply-adds."""
    drawn, nets = {}, numbers[0]["nets"]
    for axis, label in _AXES.items():
        line = [(net[axis], [one["nets"][place]["test_error"] for one in numbers]) for place, net in enumerate(nets)]
        chart = charts.draw_bands(
            f"returns-{axis.replace('_', '-')}", {"residual": line}, (label, "test error, %"), log_x=True, marker="o"
        )
        drawn[f"Test error by {label}"] = chart.to_svg(f"test error by {label}")
    rows = [
        (
            f"residual-{net['depth']}",
            [
                f"{net['parameters_m']:.2f}",
                f"{net['mmacs']:.0f}",
                *(
                    ", ".join(f"{one['nets'][place][what]:.1f}" for one in numbers)
                    for what in ("train_error", "test_error")
                ),
            ],
        )
        for place, net in enumerate(nets)
    ]
    columns = ("net", "parameters (M)", "multiply-adds (M)", "training error", "test error")
    tables = [Table("Errors in %, of each seed", columns, rows)]
    detectors = numbers[0]["detectors"]
    if detectors:
        line = [(one["gmacs"], [one["ap"]]) for one in detectors]
        chart = charts.draw_bands("returns-detectors", {"detectors": line}, ("GMACs of an image", "AP"), marker="o")
        drawn["Detectors: AP by multiply-adds"] = chart.to_svg("AP of detectors by multiply-adds")
        rows = [(one["name"], [f"{one[what]:.1f}" for what in ("parameters_m", "gmacs", "ap")]) for one in detectors]
        tables.append(Table("Detectors", ("detector", "parameters (M)", "GMACs", "AP"), rows))
    return Shown(drawn, tables)


RETURNS = Experiment(
    name="returns",
    title="What does more depth bring?",
    statement="Deeper residual nets are more accurate, and each step brings less for what it costs.",
    sources=[
        Source(
            "Test errors on CIFAR-10 of residual nets of 20, 32, 44, 56 and 110 layers: 8.75, 7.51, 7.17, 6.97 and "
            "6.43 % (the best of five); of 1202 layers 7.93 %.",
            "arXiv 1512.03385, table 6",
        ),
        Source(
            "Detectors gain by a deeper backbone, too: Faster R-CNN with ResNet-101 has 6.0 points of COCO's AP more "
            "than with VGG-16.",
            "arXiv 1512.03385, section 4.3, table 8",
        ),
    ],
    rule="By lines of least squares through all depths, beyond the margin: test accuracy rises with the logarithm of "
    "the multiply-adds, and what a step brings for each multiply-add that it adds falls from step to step. No single "
    f"step takes more than {TOLERANCE:.0f} point of accuracy away, and none brings {TOLERANCE:.0f} point more than at "
    "the price of the step before, each beyond the margin (95 % for all steps together). So with detectors and AP, "
    "where three or more are given.",
    measure=measure,
    judge=judge,
    show=show,
    least_depths=2,
    sizes=Settings((8, 14, 20, 32, 56)),
    full=replace(FULL, depths=(20, 32, 44, 56, 110)),
    duration="20 minutes, and the training of the degradation experiment if it has not been run",
)
