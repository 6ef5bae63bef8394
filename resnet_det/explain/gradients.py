"""Signals and gradients through depth: they explode or vanish without norms and shortcuts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from resnet_det.explain.estimates import Estimate, combine, fit_slope
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.signals import measure_signals, thin
from resnet_det.explain.trained import Trained
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
FEWER, AS_MANY = 50.0, 75.0  # percent of the decades a block of the shallowest net that the deepest has
MAX_IMAGES = 16  # that go through a net at once: 3 GB for 1202 layers


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Signals of each kind and depth at the start, and of trained nets with BN as deep as they are trained here."""
    chosen = lab.data.images("train", min(settings.probes, MAX_IMAGES), seed=seed)
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


def left_by_block(one: Numbers, kind: str) -> float:
    """Decades by which gradients spread from block to block, in percent of what they are in the shallowest net, in the
    deepest: 100 if growth is exponential.

    A power of the blocks is fitted to the spreads of all depths, by least squares of their logarithms.
    """
    nets = [net for net in one["nets"] if (net["kind"], net["when"]) == (kind, "at the start")]
    steps = [math.log(count_steps(net["depth"])) for net in nets]
    spreads = [math.log(net["spread"]) if net["spread"] > 0 else math.nan for net in nets]
    power = sum(weight * spread for weight, spread in zip(fit_slope(steps), spreads, strict=True))
    return 100 * math.exp((power - 1) * (max(steps) - min(steps)))


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of nets at the start: of all depths where growth with depth is meant, and else of the deepest."""
    depths = sorted({net["depth"] for net in numbers[0]["nets"]})
    shallow, depth = depths[0], depths[-1]

    def values(kind: str, name: str) -> list[float]:
        return [find(one, kind, depth)[name] for one in numbers]

    def left(kind: str) -> list[Estimate]:
        return over_seeds(numbers, lambda one: left_by_block(one, kind))

    def exact(found: Iterable[float]) -> list[Estimate]:
        return [Estimate(value) for value in found]

    more = zip(values("plain with BN", "spread"), values("residual with BN", "spread"), strict=True)
    return [
        Claim(
            f"in residual nets with BN gradients change less than exponentially: from {shallow} to {depth} layers, "
            "decades a block get fewer",
            [combine((-1, one), constant=100) for one in left("residual with BN")],
            above=100 - FEWER,
            below=100 - AS_MANY,
            unit="%",
        ),
        Claim(
            f"in plain nets with BN gradients change exponentially: from {shallow} to {depth} layers, decades a block "
            "stay",
            left("plain with BN"),
            above=AS_MANY,
            below=FEWER,
            unit="% of them are left",
        ),
        Claim(
            f"in a plain net of {depth} layers with BN gradients change more than in a residual one",
            exact(plain - residual for plain, residual in more),
            above=CLEAR,
            below=0.0,
            unit="decades",
        ),
        Claim(
            f"signals explode in a residual net of {depth} layers without norms: from the first block to the last",
            exact(values("residual without norm", "growth")),
            above=CLEAR,
            below=0.0,
            unit="decades",
        ),
        Claim(
            f"signals vanish in a plain net of {depth} layers without norms: from the first block to the last",
            exact(-growth for growth in values("plain without norm", "growth")),
            above=CLEAR,
            below=0.0,
            unit="decades",
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
            "In deep nets without normalisation gradients vanish or explode: in recurrent nets over time, and in "
            "feedforward ones from layer to layer, by their initial weights and activations.",
            "Bengio, Simard and Frasconi, IEEE Transactions on Neural Networks 5(2), 1994; Glorot and Bengio, AISTATS "
            "2010, section 4",
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
    rule="At the start, in powers of ten (decades): those over which the gradients of a net spread, divided by its "
    "blocks, stay as the nets get deeper if growth is exponential. By a power of the blocks that is fitted to all "
    f"depths, from the shallowest to the deepest net, residual nets with BN have less than {FEWER:.0f} % of them left, "
    f"and plain nets with BN more than {AS_MANY:.0f} %. Of the deepest nets, gradients of the plain one with BN spread "
    f"over {CLEAR:.0f} decades more than those of the residual one, signals of the residual one without norms grow by "
    f"more than {CLEAR:.0f}, and those of the plain one without norms shrink by more than {CLEAR:.0f}; all beyond the "
    f"margin. At most {MAX_IMAGES} images go through.",
    measure=measure,
    judge=judge,
    show=show,
    least_depths=2,
    sizes=Settings((20, 56, 110, 1202), probes=8),
    full=Settings((20, 56, 110, 1202), 0, 0, 64_000, 128, 16, MAX_IMAGES),
    draws=("train",),
    duration="six minutes, and the training of the degradation experiment if it has not been run",
)
