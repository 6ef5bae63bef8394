"""Signals and gradients through depth: they explode or vanish without norms and shortcuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab, Recipe, Trained
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.signals import measure_signals, thin
from resnet_det.explain.verdicts import Claim
from resnet_det.visualization import charts

KINDS = {
    "residual with BN": ("pad", "BN"),
    "plain with BN": ("none", "BN"),
    "residual without norm": ("pad", ""),
    "plain without norm": ("none", ""),
}
MAX_TRAINED_DEPTH = 110
CLEAR = 2.0  # decades
SLOWER = 0.5  # share by which decades a block shrink from the shallowest net to the deepest


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Signals of each kind and depth at the start, and of trained nets with BN as deep as they are trained here."""
    chosen = lab.data.images("train", settings.probes, seed=seed)
    found = []
    for depth in settings.depths:
        for kind, (shortcut, norm) in KINDS.items():
            net = Net(depth, shortcut, norm)
            torch.manual_seed(seed)
            model = net.build(len(lab.data.classes)).to(lab.device, torch.float64).train()
            found.append(_describe(kind, depth, "at the start", model, lab, lab.untrained(net), chosen))
    for depth in (depth for depth in settings.depths if depth <= MAX_TRAINED_DEPTH and _is_trained(depth, settings)):
        for kind in ("residual with BN", "plain with BN"):
            shortcut, norm = KINDS[kind]
            trained = lab.train(Net(depth, shortcut, norm), Recipe.of(settings), seed)
            model = trained.load().backbone.to(torch.float64).train()
            found.append(_describe(kind, depth, "after training", model, lab, trained, chosen))
    return {"nets": found}


def _is_trained(depth: int, settings: Settings) -> bool:
    """With the sizes for CPUs, only the depths of the degradation experiment are."""
    return depth <= (MAX_TRAINED_DEPTH if settings.iterations >= FULL.iterations else 56)


def _describe(
    kind: str, depth: int, when: str, model: torch.nn.Module, lab: Lab, trained: Trained, chosen: Any
) -> dict[str, Any]:
    images, labels = lab.pixels(trained, chosen)
    signals = measure_signals(model, images.to(torch.float64), labels)
    return {
        "kind": kind,
        "depth": depth,
        "when": when,
        "spread": _decades(max(signals["gradient"]), min(signals["gradient"])),
        "growth": _decades(signals["activation"][-1], signals["activation"][0]),
        "backward_growth": _decades(signals["gradient"][0], signals["gradient"][-1]),
        **{name: thin(values) for name, values in signals.items()},
    }


def _decades(value: float, by: float) -> float:
    """log10 of a ratio; numbers that are 0 stand for the smallest there is."""
    least = 1e-300
    return math.log10(max(value, least)) - math.log10(max(by, least))


def find(numbers: Numbers, kind: str, depth: int, when: str = "at the start") -> Numbers | None:
    wanted = kind, depth, when
    return next((net for net in numbers["nets"] if (net["kind"], net["depth"], net["when"]) == wanted), None)


def count_steps(depth: int) -> int:
    """From the first block to the last."""
    return 3 * Net(depth).stage_blocks[0] - 1


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the deepest nets at the start, and of the shallowest where growth with depth is meant."""
    depths = sorted({net["depth"] for net in numbers[0]["nets"]})
    shallow, depth = depths[0], depths[-1]

    def values(kind: str, name: str, depth: int = depth) -> list[float]:
        return over_seeds(numbers, lambda one: find(one, kind, depth)[name])

    healthy = values("residual with BN", "spread")
    before = values("residual with BN", "spread", shallow)
    steps = count_steps(depth) / count_steps(shallow)
    shares = [spread / first / steps for spread, first in zip(healthy, before, strict=True)]
    return [
        Claim(
            f"in residual nets with BN the gradient changes less than exponentially with depth: from {shallow} to "
            f"{depth} layers, decades a block shrink",
            [1 - share for share in shares],
            above=SLOWER,
            below=0.0,
            unit="of them are gone",
            digits=2,
        ),
        Claim(
            f"signals explode in a residual net of {depth} layers without norms",
            values("residual without norm", "growth"),
            above=CLEAR,
            below=0.0,
            unit="decades from the first block to the last",
        ),
        Claim(
            f"signals vanish in a plain net of {depth} layers without norms",
            [-growth for growth in values("plain without norm", "growth")],
            above=CLEAR,
            below=0.0,
            unit="decades lost",
        ),
        Claim(
            f"BN alone does not hold the gradient in a plain net of {depth} layers: more change than with shortcuts",
            [one - other for one, other in zip(values("plain with BN", "spread"), healthy, strict=True)],
            above=CLEAR,
            below=0.0,
            unit="decades more",
        ),
    ]


def show(numbers: Sequence[Numbers]) -> Shown:
    """Signals and gradients through the deepest nets, how they spread with depth, and a table of all."""
    depths = sorted({net["depth"] for net in numbers[0]["nets"]})
    drawn = {}
    for depth in dict.fromkeys((depths[0], depths[-1])):
        for name, label in (
            ("activation", "root mean square of a block's output"),
            ("gradient", "norm of its gradient"),
        ):
            series = {
                kind: _through([find(one, kind, depth) for one in numbers], name)
                for kind in KINDS
                if find(numbers[0], kind, depth)
            }
            chart = charts.draw_bands(
                f"gradients-{name}-{depth}", series, ("place in the net", label), log_y=True, columns=2
            )
            drawn[f"{depth} layers at the start: {label}"] = chart.to_svg(f"{label} by its place, {depth} layers")
    after = [net for net in numbers[0]["nets"] if net["when"] == "after training"]
    if after:
        depth = max(net["depth"] for net in after)
        series = {
            f"{kind}, {when}": _through([find(one, kind, depth, when) for one in numbers], "gradient")
            for kind in ("residual with BN", "plain with BN")
            for when in ("at the start", "after training")
        }
        chart = charts.draw_bands(
            "gradients-trained", series, ("place in the net", "norm of the gradient"), log_y=True, columns=1
        )
        drawn[f"{depth} layers, before and after training"] = chart.to_svg("norm of the gradient by place")
    rows = []
    for net in numbers[0]["nets"]:
        same = [find(one, net["kind"], net["depth"], net["when"]) for one in numbers]
        cells = [", ".join(f"{one[name]:+.1f}" for one in same) for name in ("growth", "backward_growth", "spread")]
        rows.append((f"{net['kind']}, {net['depth']}, {net['when']}", cells))
    columns = ("net", "signal, last to first block", "gradient, first to last block", "gradient, most to least")
    return Shown(drawn, [Table("Powers of ten of each seed", columns, rows)])


def _through(nets: Sequence[Numbers], name: str) -> list[tuple[float, list[float]]]:
    count = len(nets[0][name])
    return [(place / max(1, count - 1), [net[name][place] for net in nets]) for place in range(count)]


GRADIENTS = Experiment(
    name="gradients",
    title="What keeps gradients alive in deep nets?",
    statement="With batch norm and shortcuts, gradients change slowly from layer to layer, and the more slowly the "
    "deeper the net is. With BN alone they change exponentially with depth. Without norms, signals explode with "
    "shortcuts and vanish without.",
    sources=[
        Source(
            "Vanishing gradients are unlikely to be what makes plain nets hard to train: with BN, signals forward do "
            "not die out, and gradients had healthy norms (the nets for which that was checked have 18 and 34 layers).",
            "arXiv 1512.03385, section 4.1",
        ),
        Source(
            "In fully connected nets without shortcuts, BN itself makes gradients explode at the start, exponentially "
            "with depth and whatever the nonlinearity is; deep ones cannot be trained.",
            "arXiv 1902.08129, abstract",
        ),
        Source(
            "Where shortcuts are identities and nothing follows the sum (the nets here have a ReLU there), a gradient "
            "has a term that reaches every block unchanged, and does not vanish however small weights are.",
            "arXiv 1603.05027, section 2, equation 5",
        ),
        Source(
            "Without norms the variance of a residual net doubles from block to block with usual initial weights.",
            "arXiv 1901.09321, section 2",
        ),
    ],
    rule="At the start, in powers of ten (decades): from the shallowest to the deepest residual net with BN, the "
    "decades over which gradients spread from block to block, divided by the blocks, shrink by more than half (they "
    "would stay if growth were exponential). Of the deepest nets, signals of the residual one without norms grow by "
    f"more than {CLEAR:.0f}, those of the plain one without norms shrink by more than {CLEAR:.0f}, and the gradient of "
    f"the plain one with BN spreads over {CLEAR:.0f} more than that of the residual one.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56, 110, 1202), probes=8),
    full=Settings((20, 56, 110, 1202), 0, 0, 64_000, 128, 16, 64),
    duration="six minutes, and the training of the degradation experiment if it has not been run",
)
