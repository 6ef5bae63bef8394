"""A net of 1202 layers trains, and in how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab, Recipe
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import Settings
from resnet_det.explain.step_memory import measure_step
from resnet_det.explain.verdicts import Claim
from resnet_det.visualization import charts

_MIB = 2**20
FALL, SAVED = 0.05, 2.0


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Losses while the deepest net trains, and the memory of a step with and without checkpointing."""
    net = Net(settings.depths[-1])
    trained = lab.train(net, Recipe.of(settings), seed)
    memory = [
        {"checkpointed": on, **measure_step(net, settings.probes, checkpointed=on, device=lab.device)}
        for on in (False, True)
    ]
    end = trained.curve[-1]
    return {
        "depth": net.depth,
        "losses": trained.losses,
        "end": {"train_error": end.train_error, "test_error": end.test_error},
        "memory": memory,
        "memory_batch": settings.probes,
    }


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the loss at the beginning and the end, and of the two measurements of memory."""
    depth = numbers[0]["depth"]
    without, checkpointed = ([one["memory"][place] for one in numbers] for place in (0, 1))
    return [
        Claim(
            f"the training loss of ResNet-{depth} falls",
            over_seeds(
                numbers, lambda one: one["losses"][0][1] - one["losses"][-1][1] if len(one["losses"]) > 1 else None
            ),
            above=FALL,
            below=0.0,
            digits=2,
        ),
        Claim(
            "checkpointing leaves the loss as it is, and takes less memory: times as much without",
            [
                first["tensors"] / second["tensors"] if abs(first["loss"] - second["loss"]) < 1e-3 else 0.0
                for first, second in zip(without, checkpointed, strict=True)
            ],
            above=SAVED,
            below=1.0,
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
        drawn["Training loss"] = chart.to_svg(f"training loss of ResNet-{depth} over iterations")
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
            Table(title, ("ResNet", "tensors", "process"), rows),
            Table("Error at the end, %", ("net", "training", "test"), [(f"residual-{depth}", ends)]),
        ],
    )


THOUSAND = Experiment(
    name="thousand",
    title="Does a net of 1202 layers train?",
    statement="A residual net of more than a thousand layers trains like shallower ones, in little memory if it "
    "computes its blocks again in the backward pass.",
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
    rule=f"The training loss falls by more than {FALL} from the first to the last of the numbers that training writes "
    f"every 20 iterations. A step with checkpointing has the same loss, and its tensors take less than "
    f"1/{SAVED:.0f} of the memory.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((1202,), 256, 50, 100, 8, 1, 8),
    full=Settings((1202,), 0, 0, 64_000, 128, 16, 128),
    duration="a quarter of an hour",
)
