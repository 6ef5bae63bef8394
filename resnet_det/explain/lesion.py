"""A residual net does without nearly any single block; a plain net does not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from resnet_det.explain.estimates import Estimate, combine, guessing_error, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.responses import removable_blocks, without_block
from resnet_det.explain.settings import Settings
from resnet_det.explain.verdicts import LEARNED, Claim, has_learned
from resnet_det.visualization import charts

KEPT = 0.5  # share of what a net has learned by which it is said to work
NEARLY = 0.9  # share of blocks for "nearly any"


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Test errors of trained nets, whole and without each block, on images that each seed draws anew."""
    nets = lab.published_or_trained(settings, seed)
    chosen = lab.data.images("test", settings.probes, seed=seed)
    found = []
    for trained in nets:
        model = trained.load()
        whole = trained.evaluate(model, chosen)["top1_error"]
        errors = []
        for stage, place in removable_blocks(model.backbone):
            with without_block(model.backbone, stage, place):
                errors.append([f"{stage}.{place}", trained.evaluate(model, chosen)["top1_error"]])
        about = {"name": trained.name, "depth": trained.net.depth, "plain": trained.net.is_plain}
        found.append({**about, "whole": whole, "without": errors})
    return {"nets": found, "tested": len(chosen), "guessing": guessing_error(chosen.labels)}


def lost_shares(net: Numbers, guessing: float) -> list[float]:
    """What is lost without each block, in percent of the net's lead over guessing, the least first; empty without
    a lead."""
    lead = guessing - net["whole"]
    return sorted(100 * (error - net["whole"]) / lead for _, error in net["without"]) if lead > 0 else []


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the deepest nets: with how many blocks missing, one at a time, they keep most of what they have learned."""
    deep = max(net["depth"] for net in numbers[0]["nets"])
    of_depth = [[net for net in one["nets"] if net["depth"] == deep] for one in numbers]
    worst = [max(net["whole"] for net in nets) for nets in of_depth]
    errors = [share(error, one["tested"]) for error, one in zip(worst, numbers, strict=True)]
    claims = [has_learned(errors, [one["guessing"] for one in numbers])]
    for plain, kind, verb in ((False, "residual", "works"), (True, "plain", "fails")):
        text = f"{kind}-{deep} {verb} without nearly any one of its blocks"
        nets = [next((net for net in nets if net["plain"] == plain), None) for nets in of_depth]
        if None in nets:
            claims.append(Claim(f"{text} (no {kind} net was given)", ()))
            continue
        told = "; ".join(_tell(net, one["guessing"]) for net, one in zip(nets, numbers, strict=True))
        values = [_keeps(net, one, plain) for net, one in zip(nets, numbers, strict=True)]
        claims.append(Claim(f"{text}: {told}", values, unit="points of error"))
    return claims


def _keeps(net: Numbers, one: Numbers, plain: bool) -> Estimate:
    """By how many points a residual net stays clear of losing half of its lead, or a plain net is beyond that, without
    the block that is the worst for the claim but for one in ten."""
    errors = sorted((error for _, error in net["without"]), reverse=plain)
    without = share(errors[math.ceil(NEARLY * len(errors)) - 1], one["tested"])
    sign, whole = (-1 if plain else 1), share(net["whole"], one["tested"])
    # Kept is guessing - without, and half of the lead is KEPT * (guessing - whole).
    return combine((-sign, without), (sign * KEPT, whole), constant=sign * (1 - KEPT) * one["guessing"])


def _tell(net: Numbers, guessing: float) -> str:
    lost = lost_shares(net, guessing)
    if not lost:
        return "has learned nothing"
    median = statistics.median(lost)
    return (
        f"works without {_count_fine(net, guessing)}, loses {median:.0f} % in the median and {lost[-1]:.0f} % at worst"
    )


def _count_fine(net: Numbers, guessing: float) -> str:
    """Such as "25 of 27": of how many blocks any one can be missing, and half of the lead is kept."""
    fine = sum(lost < 100 * (1 - KEPT) for lost in lost_shares(net, guessing))
    return f"{fine} of {len(net['without'])}"


def show(numbers: Sequence[Numbers]) -> Shown:
    """Errors without each block by its place, and their medians."""
    drawn, rows = {}, []
    for place, net in enumerate(numbers[0]["nets"]):
        seeds = [one["nets"][place] for one in numbers]
        cells = [
            ", ".join(f"{one['whole']:.1f}" for one in seeds),
            ", ".join(f"{statistics.median(error for _, error in one['without']):.1f}" for one in seeds),
            ", ".join(f"{max(error for _, error in one['without']):.1f}" for one in seeds),
            ", ".join(_count_fine(one["nets"][place], one["guessing"]) for one in numbers),
        ]
        rows.append((net["name"], cells))
    for depth in sorted({net["depth"] for net in numbers[0]["nets"]}):
        series = {}
        for place, net in enumerate(numbers[0]["nets"]):
            if net["depth"] != depth:
                continue
            seeds = [one["nets"][place] for one in numbers]
            count = len(net["without"])
            series[f"{net['name']} without a block"] = [
                (n / max(1, count - 1), [one["without"][n][1] for one in seeds]) for n in range(count)
            ]
            series[f"{net['name']}, whole"] = [(x, [one["whole"] for one in seeds]) for x in (0, 1)]
        chart = charts.draw_bands(f"lesion-{depth}", series, ("place of the block", "test error, %"), columns=2)
        drawn[f"{depth} layers"] = chart.to_svg(f"test error of nets of {depth} layers without each block")
    columns = ("net", "whole", "without a block, median", "without the most important one", "blocks it can do without")
    return Shown(drawn, [Table("Test errors in %, of each seed", columns, rows)])


LESION = Experiment(
    name="lesion",
    title="Can a net do without a block?",
    statement="Nearly any single block can be taken out of a trained residual net, and it still works; a plain net "
    "fails without nearly any one of its own.",
    sources=[
        Source(
            "Deleting one block of a trained ResNet-110 hardly changes its error on CIFAR-10, but for the blocks that "
            "downsample; deleting a layer of a VGG net brings it to guessing.",
            "arXiv 1605.06431, section 4.1, figure 3",
        ),
        Source(
            "A residual net is like an ensemble of many paths: a block is part of half of them, and mostly short ones "
            "carry the gradient.",
            "arXiv 1605.06431, sections 3 and 5",
        ),
    ],
    rule="A net works if it keeps more than half of its lead over guessing, and fails if it does not. Of the deepest "
    f"nets, the residual one works without any one of {100 * NEARLY:.0f} % of its blocks, and the plain one fails "
    f"without any one of {100 * NEARLY:.0f} % of its own: beyond the margin, in points of error, for the block of "
    "these that is nearest to the limit. Blocks that change the shape are replaced by their shortcut, and stay in "
    f"plain nets, which have none. A condition: both nets are {LEARNED:.0f} points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    duration="five minutes, and the training of the degradation experiment if it has not been run",
    takes_weights=True,
    draws=("test",),
)
