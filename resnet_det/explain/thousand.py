"""A net of 1202 layers trains, and in how much memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from resnet_det.explain.estimates import Estimate, combine, guessing_error, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.settings import Settings
from resnet_det.explain.step_memory import StepCost, measure_step
from resnet_det.explain.verdicts import LEARNED, Claim
from resnet_det.visualization import charts

_MIB = 2**20
DEEP = 1000  # layers that are called a thousand
MEMORY_BATCH = 8  # images of the step whose memory is measured: 0.8 GB for 1202 layers
FALL, SAVED, AGREEMENT = 0.2, 50.0, 99.0


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Losses and errors of the net that is trained, and what a step takes and gives with and without checkpointing."""
    net, recipe = Net(settings.depths[-1]), Recipe.of(settings)
    trained = lab.train(net, recipe, seed)
    steps = [measure_step(net, MEMORY_BATCH, checkpointed=on, device=lab.device) for on in (False, True)]
    end, probe = trained.curve[-1], lab.probe(recipe)
    return {
        "depth": net.depth,
        "classes": len(lab.data.classes),
        "losses": trained.losses,
        "end": asdict(end),
        "probed": len(probe),
        "guessing": guessing_error(probe.labels),
        "memory": [{"tensors": step.tensors, "resident": step.resident} for step in steps],
        "memory_batch": MEMORY_BATCH,
        "agreement": measure_agreement(*steps),
    }


def measure_agreement(first: StepCost, second: StepCost) -> float:
    """How much of loss and gradient is the same, in percent: 100 less the difference in percent of the first, of the
    two that which differs more."""
    by_loss = abs(first.loss - second.loss) / max(abs(first.loss), 1e-12)
    norm = max(np.linalg.norm(first.gradient), 1e-12)
    return float(100 * (1 - max(by_loss, np.linalg.norm(first.gradient - second.gradient) / norm)))


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the loss and the error at the end, and of the two measurements of a step, which is the same one for all seeds:
    chance has no part in what they count.
    """
    depth = numbers[0]["depth"]
    errors = [share(one["end"]["train_error"], one["probed"]) for one in numbers]

    def saved(one: Numbers) -> float:
        without, checkpointed = (step["tensors"] for step in one["memory"])
        return 100 * (1 - checkpointed / without)

    leads = [combine((-1, error), constant=one["guessing"]) for error, one in zip(errors, numbers, strict=True)]
    return [
        Claim(
            f"residual-{depth} has {DEEP} layers or more",
            [Estimate(depth, 0.0)] * len(numbers),
            above=DEEP - 1,
            unit="layers",
            digits=0,
            is_condition=True,
        ),
        Claim(
            f"the training loss of residual-{depth} ends below that of guessing",
            over_seeds(numbers, lambda one: math.log(one["classes"]) - one["losses"][-1][1] if one["losses"] else None),
            above=FALL,
            below=0.0,
            digits=2,
        ),
        Claim(
            f"the training error of residual-{depth} is {LEARNED:.0f} points below guessing",
            leads,
            above=LEARNED,
            below=0.0,
            unit="points",
        ),
        Claim(
            "checkpointing leaves loss and gradient as they are",
            over_seeds(numbers, lambda one: one["agreement"], deviation=0.0),
            above=AGREEMENT,
            unit="% the same",
        ),
        Claim(
            "checkpointing saves memory of tensors",
            over_seeds(numbers, saved, deviation=0.0),
            above=SAVED,
            below=0.0,
            unit="%",
        ),
    ]


def show(numbers: Sequence[Numbers]) -> Shown:
    """The loss over iterations, and memory."""
    depth = numbers[0]["depth"]
    points = list(zip(*(one["losses"] for one in numbers), strict=True))
    drawn = {}
    if points:
        line = [(at[0][0], [loss for _, loss in at]) for at in points]
        chart = charts.draw_bands("thousand-loss", {f"residual-{depth}": line}, ("iteration", "training loss"))
        drawn["Training loss"] = chart.to_svg(f"training loss of residual-{depth} over iterations")
    rows = []
    for place, name in enumerate(("as it is", "with checkpointing")):
        cells = [
            ", ".join("–" if value is None else f"{value / _MIB:,.0f}" for value in values)  # noqa: RUF001 (a dash)
            for values in ([one["memory"][place][what] for one in numbers] for what in ("tensors", "resident"))
        ]
        rows.append((name, cells))
    title = f"Memory of a training step of {numbers[0]['memory_batch']} images, MiB, of each seed"
    ends = [", ".join(f"{one['end'][what]:.1f}" for one in numbers) for what in ("train_error", "test_error")]
    return Shown(
        drawn,
        [
            Table(title, ("step", "tensors", "process"), rows),
            Table("Error at the end, %", ("net", "training", "test"), [(f"residual-{depth}", ends)]),
        ],
    )


THOUSAND = Experiment(
    name="thousand",
    title="Does a net of 1202 layers train?",
    statement="A residual net of more than a thousand layers trains, in little memory if it computes its blocks again "
    "in the backward pass.",
    sources=[
        Source(
            "ResNet-1202 shows no difficulty in training, to less than 0.1 % of training error on CIFAR-10; its test "
            "error, 7.93 %, is above that of ResNet-110, 6.43 %, which the authors put down to overfitting: it may be "
            "larger than so few images need.",
            "arXiv 1512.03385, section 4.2, table 6",
        ),
        Source(
            "Keeping the inputs of some segments of a net only, and computing the rest again, takes memory in the "
            "order of the square root of the depth, for one more forward pass.",
            "arXiv 1604.06174, abstract and section 4",
        ),
    ],
    rule=f"At the end of training, the loss (smoothed over 20 steps) is more than {FALL} below that of guessing, the "
    "logarithm of the number of classes, and the training error, measured without augmentation, is more than "
    f"{LEARNED:.0f} points below guessing. A step of {MEMORY_BATCH} images with checkpointing has the same loss and "
    f"gradient, to {100 - AGREEMENT:.0f} %, and its tensors take less than half of the memory. All of it beyond the "
    f"margin. A condition: the net has {DEEP} layers or more.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((1202,), 256, 200, 450, 8, 1),
    full=Settings((1202,), 0, 0, 64_000, 128, 16),
    duration="half an hour",
    most_depths=1,
)
