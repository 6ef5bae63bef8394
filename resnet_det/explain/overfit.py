"""Depth on little data: what is lost, and what gives it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table, over_seeds
from resnet_det.explain.lab import Lab, Recipe
from resnet_det.explain.nets import Net
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.verdicts import Claim, resolution
from resnet_det.visualization import charts

SHARES = (5, 20, 100)  # percent of the images
BARE = {"augment": False, "weight_decay": 0.0}
REMEDIES = ("stochastic depth", "weight decay", "augmentation")
DROP, DECAY = 0.5, 1e-3


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Errors of nets without any regularisation by depth and share, and of the deepest with each remedy."""
    images = len(lab.data.images("train", settings.images))
    nets = []
    for share in SHARES:
        count = max(len(lab.data.classes), round(images * share / 100))
        recipe = replace(Recipe.of(settings, **BARE), images=count)
        nets += [_train(lab, Net(depth), recipe, seed, share, "") for depth in settings.depths]
        if share == SHARES[0]:
            deep = Net(settings.depths[-1])
            changed = {
                "stochastic depth": (replace(deep, stochastic_depth=DROP), recipe),
                "weight decay": (deep, replace(recipe, weight_decay=DECAY)),
                "augmentation": (deep, replace(recipe, augment=True)),
            }
            nets += [_train(lab, *changed[remedy], seed, share, remedy) for remedy in REMEDIES]
    return {"nets": nets, "tested": len(lab.data.images("test", settings.test_images))}


def _train(lab: Lab, net: Net, recipe: Recipe, seed: int, share: int, remedy: str) -> dict[str, Any]:
    end = lab.train(net, recipe, seed).curve[-1]
    about = {"depth": net.depth, "share": share, "images": recipe.images, "remedy": remedy}
    return {**about, "train_error": end.train_error, "test_error": end.test_error}


def find(numbers: Numbers, depth: int, share: int, remedy: str = "") -> Numbers:
    wanted = depth, share, remedy
    return next(net for net in numbers["nets"] if (net["depth"], net["share"], net["remedy"]) == wanted)


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the deepest net at the smallest share and all images, and of the best remedy."""
    depths = sorted({net["depth"] for net in numbers[0]["nets"]})
    shallow, deep = depths[0], depths[-1]
    few, whole = SHARES[0], SHARES[-1]

    def gap(one: Numbers, depth: int, share: int) -> float:
        net = find(one, depth, share)
        return net["test_error"] - net["train_error"]

    bare = over_seeds(numbers, lambda one: find(one, deep, few)["test_error"])
    margin = resolution(sum(bare) / len(bare), numbers[0]["tested"])
    gains = {
        remedy: over_seeds(
            numbers,
            lambda one, remedy=remedy: find(one, deep, few)["test_error"] - find(one, deep, few, remedy)["test_error"],
        )
        for remedy in REMEDIES
    }
    best = max(gains, key=lambda remedy: min(gains[remedy]))
    return [
        Claim(
            f"between training and test error of residual-{deep} there is more at {few} % of the images than at all",
            over_seeds(numbers, lambda one: gap(one, deep, few) - gap(one, deep, whole)),
            above=margin,
            below=-margin,
            unit="points more",
        ),
        Claim(
            f"at {few} %, residual-{deep} has lost its lead over residual-{shallow} that it has with all images",
            over_seeds(
                numbers,
                lambda one: (
                    (find(one, shallow, whole)["test_error"] - find(one, deep, whole)["test_error"])
                    - (find(one, shallow, few)["test_error"] - find(one, deep, few)["test_error"])
                ),
            ),
            above=margin,
            below=-margin,
            unit="points",
        ),
        Claim(
            f"regularisation gives test error back, most of all {best}",
            gains[best],
            above=margin,
            below=-margin,
            unit="points",
        ),
    ]


def show(numbers: Sequence[Numbers]) -> Shown:
    """Errors by share and depth, and what each remedy gives back."""
    depths, drawn, rows = sorted({net["depth"] for net in numbers[0]["nets"]}), {}, []
    for what, title in (("test_error", "Test error"), ("train_error", "Training error")):
        series = {
            f"residual-{depth}": [
                (find(numbers[0], depth, share)["images"], [find(one, depth, share)[what] for one in numbers])
                for share in SHARES
            ]
            for depth in depths
        }
        name = f"overfit-{what.replace('_', '-')}"
        chart = charts.draw_bands(name, series, ("training images", f"{title.lower()}, %"), log_x=True, marker="o")
        drawn[f"{title} without regularisation"] = chart.to_svg(f"{title} by the number of training images")
    for place, net in enumerate(numbers[0]["nets"]):
        name = f"residual-{net['depth']}, {net['share']} %"
        cells = [
            ", ".join(f"{one['nets'][place][what]:.1f}" for one in numbers) for what in ("train_error", "test_error")
        ]
        rows.append((name, [net["remedy"] or "–", *cells]))  # noqa: RUF001 (a dash)
    columns = ("net, share of the images", "remedy", "training error", "test error")
    return Shown(drawn, [Table("Errors in %, of each seed", columns, rows)])


OVERFIT = Experiment(
    name="overfit",
    title="Do deep nets need many images?",
    statement="On few images a deep net learns them by heart, and its lead over a shallow one goes; stochastic depth, "
    "weight decay and augmentation give part of the test error back.",
    sources=[
        Source(
            "ResNet-1202 trains as well as ResNet-110 and tests worse, which is put down to overfitting: it is too "
            "large for 50,000 images, and strong regularisation may mend that.",
            "arXiv 1512.03385, section 4.2",
        ),
        Source(
            "Skipping blocks at random in training takes the test error of ResNet-110 on CIFAR-10 from 6.41 to 5.25 %, "
            "with augmentation, and lets 1202 layers do better still (4.91 %).",
            "arXiv 1603.09382, section 4, table 1",
        ),
    ],
    rule="Beyond what chance makes of so many test images (95 %): the gap between training and test error of the "
    f"deepest net without regularisation is larger at {SHARES[0]} % of the images than at all; its lead in test error "
    f"over the shallowest is smaller there; and at {SHARES[0]} % one of stochastic depth ({DROP}), weight decay "
    f"({DECAY}) and augmentation (crops and flips) lessens its test error. All nets see as many batches.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((8, 20)),
    full=replace(FULL, depths=(20, 56, 110)),
    duration="an hour",
)
