"""Depth on little data: what is lost, and what gives it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from resnet_det.explain.estimates import Estimate, combine, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.settings import FULL, Settings
from resnet_det.explain.verdicts import Claim
from resnet_det.visualization import charts

SHARES = (5, 20, 100)  # percent of the images
BARE = {"augment": False, "weight_decay": 0.0}
REMEDIES = ("stochastic depth", "weight decay", "augmentation")
DROP, DECAY = 0.5, 1e-3
BY_HEART = 95.0  # percent of the training images that are right
LEFT = 0.5  # share of a lead


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """Errors of nets without any regularisation by depth and share, and of the deepest with each remedy."""
    images = len(lab.data.images("train", settings.images))
    nets = []
    for part in SHARES:
        count = max(len(lab.data.classes), round(images * part / 100))
        recipe = replace(Recipe.of(settings, **BARE), images=count)
        nets += [_train(lab, Net(depth), recipe, seed, part, "") for depth in settings.depths]
        if part == SHARES[0]:
            deep = Net(settings.depths[-1])
            changed = {
                "stochastic depth": (replace(deep, stochastic_depth=DROP), recipe),
                "weight decay": (deep, replace(recipe, weight_decay=DECAY)),
                "augmentation": (deep, replace(recipe, augment=True)),
            }
            nets += [_train(lab, *changed[remedy], seed, part, remedy) for remedy in REMEDIES]
    return {"nets": nets, "tested": len(lab.data.images("test", settings.test_images))}


def _train(lab: Lab, net: Net, recipe: Recipe, seed: int, part: int, remedy: str) -> dict[str, Any]:
    end = lab.train(net, recipe, seed).curve[-1]
    about = {"depth": net.depth, "share": part, "images": recipe.images, "remedy": remedy}
    return {
        **about,
        "train_error": end.train_error,
        "test_error": end.test_error,
        "probed": len(lab.probe(recipe)),
    }


def find(numbers: Numbers, depth: int, part: int, remedy: str = "") -> Numbers:
    wanted = depth, part, remedy
    return next(net for net in numbers["nets"] if (net["depth"], net["share"], net["remedy"]) == wanted)


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of the shallowest and the deepest net at the smallest share and all images, and of each remedy."""
    depths = sorted({net["depth"] for net in numbers[0]["nets"]})
    shallow, deep = depths[0], depths[-1]
    few, whole = SHARES[0], SHARES[-1]

    def train(one: Numbers, depth: int, part: int) -> Estimate:
        net = find(one, depth, part)
        return share(net["train_error"], net["probed"])

    def test(one: Numbers, depth: int, part: int, remedy: str = "") -> Estimate:
        return share(find(one, depth, part, remedy)["test_error"], one["tested"])

    return [
        Claim(
            f"with all images, residual-{deep} has less test error than residual-{shallow}",
            [combine((1, test(one, shallow, whole)), (-1, test(one, deep, whole))) for one in numbers],
            unit="points",
            is_condition=True,
        ),
        Claim(
            f"residual-{deep} learns {few} % of the images by heart: share of these that it has right",
            [combine((-1, train(one, deep, few)), constant=100) for one in numbers],
            above=BY_HEART,
            unit="%",
        ),
        Claim(
            f"test error of residual-{deep} is further above its training error at {few} % of the images than with all",
            [
                combine(
                    (1, test(one, deep, few)),
                    (-1, train(one, deep, few)),
                    (-1, test(one, deep, whole)),
                    (1, train(one, deep, whole)),
                )
                for one in numbers
            ],
            unit="points",
        ),
        Claim(
            f"at {few} %, residual-{deep} has less than half of its lead over residual-{shallow} with all images",
            [
                combine(
                    (LEFT, test(one, shallow, whole)),
                    (-LEFT, test(one, deep, whole)),
                    (-1, test(one, shallow, few)),
                    (1, test(one, deep, few)),
                )
                for one in numbers
            ],
            unit="points",
        ),
        *(
            Claim(
                f"at {few} %, {remedy} lessens the test error of residual-{deep}",
                [combine((1, test(one, deep, few)), (-1, test(one, deep, few, remedy))) for one in numbers],
                unit="points",
                comparisons=len(REMEDIES),
            )
            for remedy in REMEDIES
        ),
    ]


def show(numbers: Sequence[Numbers]) -> Shown:
    """Errors by share and depth, and what each remedy gives back."""
    depths, drawn, rows = sorted({net["depth"] for net in numbers[0]["nets"]}), {}, []
    for what, title in (("test_error", "Test error"), ("train_error", "Training error")):
        series = {
            f"residual-{depth}": [
                (find(numbers[0], depth, part)["images"], [find(one, depth, part)[what] for one in numbers])
                for part in SHARES
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
    "weight decay and augmentation each win back part of the accuracy lost.",
    sources=[
        Source(
            "ResNet-1202 trains as well as ResNet-110 and tests worse, which is put down to overfitting: it is too "
            "large for 50,000 images, and strong regularisation may mend that.",
            "arXiv 1512.03385, section 4.2",
        ),
        Source(
            "Skipping blocks at random in training takes the test error of ResNet-110 on CIFAR-10 from 6.41 to 5.23 %, "
            "with augmentation, and lets 1202 layers do better still (4.91 %).",
            "arXiv 1603.09382, section 4, table 1",
        ),
    ],
    rule=f"Beyond the margin, and without any regularisation: at {SHARES[0]} % of the images the deepest net has more "
    f"than {BY_HEART:.0f} % of its training images right, its test error is further above its training error than with "
    "all images, and less than half of its lead in test error over the shallowest net is left. "
    f"At {SHARES[0]} %, each of stochastic depth ({DROP}), weight decay ({DECAY}) and augmentation (crops and flips) "
    "lessens its test error (95 % for the three together). All nets see as many batches. A condition: with all images "
    "the deepest net has that lead.",
    measure=measure,
    judge=judge,
    show=show,
    least_depths=2,
    sizes=Settings((8, 20)),
    full=replace(FULL, depths=(20, 56, 110)),
    duration="an hour",
)
