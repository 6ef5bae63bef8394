"""Residual blocks answer little, and the less the deeper the net is: each is close to the identity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from resnet_det.explain.estimates import Estimate, combine, guessing_error, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab
from resnet_det.explain.responses import measure_responses
from resnet_det.explain.settings import Settings
from resnet_det.explain.verdicts import LEARNED, Claim, has_learned
from resnet_det.visualization import charts

LITTLE = 0.5  # of its input that a block adds


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Responses of trained nets to test images, which each seed draws anew."""
    nets = lab.published_or_trained(settings, seed)
    chosen = lab.data.images("test", settings.probes, seed=seed)
    found = []
    for trained in nets:
        model = trained.load()
        about = {"name": trained.name, "depth": trained.net.depth, "plain": trained.net.is_plain}
        about["error"] = trained.evaluate(model, chosen)["top1_error"]
        found.append(about | measure_responses(model.backbone, lab.pixels(trained, chosen)[0]))
    return {"nets": found, "tested": len(chosen), "guessing": guessing_error(chosen.labels)}


def mean_of(numbers: Numbers, name: str, what: str) -> float | None:
    found = [net[what] for net in numbers["nets"] if net["name"] == name]
    return statistics.fmean(found[0]) if found and found[0] else None


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the shallowest and the deepest residual net, and the plain net of that depth."""
    nets = numbers[0]["nets"]
    worst = [share(max(net["error"] for net in one["nets"]), one["tested"]) for one in numbers]
    claims = [has_learned(worst, [one["guessing"] for one in numbers])]
    depths = sorted({net["depth"] for net in nets if not net["plain"]})
    if not depths:
        return [*claims, Claim("a block adds less than half of its input (no residual net was given)", ())]
    shallow, deep = depths[0], depths[-1]

    def ratio(first: tuple[str, str], second: tuple[str, str]) -> list[Estimate]:
        """How much less the second is than the first, in percent."""
        return over_seeds(numbers, lambda one: 100 * (1 - mean_of(one, *second) / mean_of(one, *first)))

    added = over_seeds(numbers, lambda one: mean_of(one, f"residual-{deep}", "blocks"))
    claims.append(
        Claim(
            f"a block of residual-{deep} adds less than half of its input: its input less what it adds, in % of the "
            "input",
            [combine((-100, one), constant=100) for one in added],
            above=100 * (1 - LITTLE),
            unit="%",
        )
    )
    if any(net["plain"] and net["depth"] == deep for net in nets):
        claims.append(
            Claim(
                f"layers of residual-{deep} respond less than those of plain-{deep}",
                ratio((f"plain-{deep}", "layers"), (f"residual-{deep}", "layers")),
                unit="%",
            )
        )
    if deep > shallow:
        for what, text in (
            ("layers", f"layers of residual-{deep} respond less than those of residual-{shallow}"),
            ("blocks", f"a block of residual-{deep} adds less to its input than one of residual-{shallow}"),
        ):
            if mean_of(numbers[0], f"residual-{shallow}", what) is not None:
                values = ratio((f"residual-{shallow}", what), (f"residual-{deep}", what))
                claims.append(Claim(text, values, unit="%"))
    return claims


def show(numbers: Sequence[Numbers]) -> Shown:
    """Responses of layers, in order and sorted as in figure 7, and what blocks add."""
    drawn = {}
    for what, title, is_sorted in (
        ("layers", "Responses of layers, from the first to the last", False),
        ("layers", "Responses of layers, sorted", True),
        ("blocks", "What a block adds, by its input", False),
    ):
        series = {}
        for place, net in enumerate(numbers[0]["nets"]):
            lines = [one["nets"][place][what] for one in numbers]
            if (net["plain"] and what == "blocks") or not lines[0]:
                continue
            lines = [sorted(line, reverse=True) if is_sorted else line for line in lines]
            count = len(lines[0])
            series[net["name"]] = [(n / max(1, count - 1), [line[n] for line in lines]) for n in range(count)]
        if series:
            label = "standard deviation" if what == "layers" else "RMS of what is added, by RMS of the input"
            by = "rank, greatest first" if is_sorted else "place in the net"
            chart = charts.draw_bands(f"identity-{what}{'-sorted' if is_sorted else ''}", series, (by, label))
            drawn[title] = chart.to_svg(title)
    rows = []
    for net in numbers[0]["nets"]:
        cells = []
        for what in ("layers", "blocks"):
            values = over_seeds(numbers, lambda one, name=net["name"], what=what: mean_of(one, name, what))
            cells.append(", ".join(f"{one.value:.3f}" for one in values) or "–")  # noqa: RUF001 (a dash)
        rows.append((net["name"], cells))
    columns = ("net", "standard deviation of a layer's response", "what a block adds, by its input")
    return Shown(drawn, [Table("Means, of each seed", columns, rows)])


IDENTITY = Experiment(
    name="identity",
    title="How far is a residual block from the identity?",
    statement="Blocks of a trained residual net change what goes through them a little, and the less the more of them "
    "there are.",
    sources=[
        Source(
            "Standard deviations of the layers' responses (after BN, before activation and sum) are smaller in "
            "residual nets than in plain ones, and smaller in ResNet-110 than in ResNet-56 and ResNet-20: residual "
            "functions might in general be closer to zero than functions without shortcuts.",
            "arXiv 1512.03385, section 4.2, figure 7",
        ),
        Source(
            "A residual net can be read as an unrolled iteration: blocks of a stage refine an estimate of the same "
            "features rather than computing new ones.",
            "arXiv 1612.07771, abstract",
        ),
    ],
    rule="By means over layers and blocks, beyond the margin: of the deepest residual net, a block adds less than half "
    "of its input (of blocks whose shortcut is the identity), and less than one of the shallowest residual net; its "
    "layers respond less than those of the plain net of its depth, and than those of the shallowest residual net. Of "
    "nets from elsewhere, what takes a plain net, or two depths, counts where they are given. "
    f"A condition: all nets are {LEARNED:.0f} points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    duration="two minutes, and the training of the degradation experiment if it has not been run",
    takes_weights=True,
    draws=("test",),
)
