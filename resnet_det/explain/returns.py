"""What more depth brings, and what it costs: less and less for the same price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from resnet_det.analysis.cost import count_macs
from resnet_det.explain.detectors import read_detectors
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import SIZE_PX, Lab, Recipe
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.verdicts import Claim, resolution
from resnet_det.visualization import charts

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
    """Of the shallowest, the middle and the deepest net."""
    nets = numbers[0]["nets"]
    first, middle, last = 0, len(nets) // 2, len(nets) - 1
    error = sum(net["test_error"] for net in nets) / len(nets)

    def gain(one: Numbers, start: int, end: int) -> float:
        return one["nets"][start]["test_error"] - one["nets"][end]["test_error"]

    def price(start: int, end: int) -> float:
        return nets[end]["mmacs"] - nets[start]["mmacs"]

    margin = resolution(error, numbers[0]["tested"])
    names = [f"residual-{nets[place]['depth']}" for place in (first, middle, last)]
    claims = [
        Claim(
            f"{names[2]} has less test error than {names[0]}",
            over_seeds(numbers, lambda one: gain(one, first, last)),
            above=margin,
            below=-margin,
            unit="points",
        )
    ]
    claims += _judge_detectors(numbers[0]["detectors"])
    if not first < middle < last:
        return [*claims, Claim("each step brings less than the one before (three depths or more tell)", ())]
    values = over_seeds(
        numbers,
        lambda one: (
            100 * (gain(one, first, middle) / price(first, middle) - gain(one, middle, last) / price(middle, last))
        ),
    )
    text = f"a multiply-add brings more from {names[0]} to {names[1]} than from there to {names[2]}"
    return [*claims, Claim(text, values, unit="points more for 100 million", digits=2)]


def _judge_detectors(detectors: Sequence[Numbers]) -> list[Claim]:
    """Whether detectors say the same, where there are three or more."""
    if len(detectors) < 3:
        return []
    first, middle, last = detectors[0], detectors[len(detectors) // 2], detectors[-1]

    def gain_per_cost(start: Numbers, end: Numbers) -> float:
        return (end["ap"] - start["ap"]) / (end["gmacs"] - start["gmacs"])

    text = f"so it is with detectors: {first['name']}, {middle['name']} and {last['name']}"
    value = gain_per_cost(first, middle) - gain_per_cost(middle, last)
    return [Claim(text, (value,), unit="points of AP more for a GMAC", digits=3)]


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
            "6.43 %; of 1202 layers 7.93 %.",
            "arXiv 1512.03385, table 6",
        ),
        Source(
            "Detectors gain by a deeper backbone, too: Faster R-CNN with ResNet-101 has 6.0 points of COCO's AP more "
            "than with VGG-16.",
            "arXiv 1512.03385, section 4.3, table 8",
        ),
    ],
    rule="The deepest net has less test error than the shallowest, beyond what chance makes of so many images (95 %); "
    "and points of test error for each multiply-add are more from the shallowest net to the middle one than from there "
    "to the deepest. So with detectors and AP, where three or more are given.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((8, 14, 20, 32, 56)),
    full=replace(FULL, depths=(20, 32, 44, 56, 110)),
    duration="20 minutes, and the training of the degradation experiment if it has not been run",
)
