"""A residual net does without any single block; a plain net does not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.responses import removable_blocks, without_block
from resnet_det.explain.settings import Settings
from resnet_det.explain.verdicts import LEARNED, Claim, guessing_error, has_learned
from resnet_det.visualization import charts

SHARE = 0.5


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Test errors of trained nets, whole and without each block, on images that each seed draws anew."""
    nets = lab.published_or_trained(settings, seed)
    chosen = lab.data.images("test", settings.probes, seed=seed)
    found = []
    for trained in nets:
        model = trained.load()
        whole = lab.evaluate(trained, model, chosen)["top1_error"]
        errors = []
        for stage, place in removable_blocks(model.backbone):
            with without_block(model.backbone, stage, place):
                errors.append([f"{stage}.{place}", lab.evaluate(trained, model, chosen)["top1_error"]])
        about = {"name": trained.name, "depth": trained.net.depth, "plain": trained.net.is_plain}
        found.append({**about, "whole": whole, "without": errors})
    return {"nets": found, "classes": len(lab.data.classes)}


def harm(net: Numbers) -> float:
    """How many points of error a missing block costs, in the median over blocks."""
    return statistics.median(error - net["whole"] for _, error in net["without"])


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the deepest nets: what a block costs, by what the net has learned."""
    deep = max(net["depth"] for net in numbers[0]["nets"])
    chance = guessing_error(numbers[0]["classes"])

    def find(one: Numbers, plain: bool) -> Numbers | None:
        return next((net for net in one["nets"] if net["depth"] == deep and net["plain"] == plain), None)

    def lost(plain: bool) -> list[float]:
        """The share of what is learned that is lost, in percent."""
        nets = [find(one, plain) for one in numbers]
        if None in nets:
            return []
        leads = [chance - net["whole"] for net in nets]
        return [100 * harm(net) / lead if lead > 0 else math.nan for net, lead in zip(nets, leads, strict=True)]

    learned = [min(chance - net["whole"] for net in one["nets"] if net["depth"] == deep) for one in numbers]
    residual = lost(plain=False)
    claims = [
        has_learned(learned),
        Claim(
            f"residual-{deep} keeps most of what it has learned without one of its blocks",
            [100 * SHARE - share for share in residual],
            unit=f"points below {100 * SHARE:.0f} % lost",
        ),
    ]
    plain = lost(plain=True)
    text = f"plain-{deep} loses more than twice as large a share"
    if plain:
        values = [one - max(2 * other, 5.0) for one, other in zip(plain, residual, strict=True)]
        return [*claims, Claim(text, values, unit="points beyond")]
    return [*claims, Claim(f"{text} (no plain net was given)", ())]


def show(numbers: Sequence[Numbers]) -> Shown:
    """Errors without each block by its place, and their medians."""
    drawn, rows = {}, []
    for place, net in enumerate(numbers[0]["nets"]):
        seeds = [one["nets"][place] for one in numbers]
        cells = [
            ", ".join(f"{one['whole']:.1f}" for one in seeds),
            ", ".join(f"{one['whole'] + harm(one):.1f}" for one in seeds),
            ", ".join(f"{max(error for _, error in one['without']):.1f}" for one in seeds),
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
    columns = ("net", "whole", "without a block, median", "without the most important one")
    return Shown(drawn, [Table("Test errors in %, of each seed", columns, rows)])


LESION = Experiment(
    name="lesion",
    title="Can a net do without a block?",
    statement="Any single block can be taken out of a trained residual net, and it still works; a plain net does not.",
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
    rule=f"Of the deepest nets, by the median over blocks: without a block the residual net loses less than "
    f"{100 * SHARE:.0f} % of its lead over guessing, and the plain net more than twice that share, and more than 5 %. "
    f"Blocks that change the shape are replaced by their shortcut, and stay in plain nets, which have none. A "
    f"condition: both nets are {LEARNED:.0f} points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    duration="five minutes, and the training of the degradation experiment if it has not been run",
    takes_weights=True,
)
