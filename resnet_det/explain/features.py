"""What nets of different depth see in a picture, and how their stages tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from resnet_det.analysis.features import record_features
from resnet_det.explain.estimates import combine, guessing_error, share
from resnet_det.explain.experiment import Experiment, Numbers, Shown, Source, Table
from resnet_det.explain.lab import Lab
from resnet_det.explain.pictures import draw_activation, draw_cam, draw_filters, look, to_uri
from resnet_det.explain.settings import Settings
from resnet_det.explain.trained import Trained
from resnet_det.explain.verdicts import LEARNED, Claim, has_learned, worst_of
from resnet_det.visualization import charts

_BATCH = 100
NUM_PICTURES = 2


def measure(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """How well each stage tells classes apart; and of the first seed, pictures."""
    nets = lab.published_or_trained(settings, seed, shortcuts=("pad",))
    train, test = (lab.data.images(split, settings.probes, seed=seed) for split in ("train", "test"))
    found = []
    for trained in nets:
        model = trained.load()
        known, wanted = (_pool_features(model, *lab.pixels(trained, images)) for images in (train, test))
        accuracies = {stage: classify_by_means(*known[stage], *wanted[stage]) for stage in known}
        pictures = _draw(lab, trained, model) if seed == 0 else {}
        about = {"name": trained.name, "depth": trained.net.depth}
        about["error"] = trained.evaluate(model, test)["top1_error"]
        found.append({**about, "accuracy": accuracies, "pictures": pictures})
    return {"nets": found, "tested": len(test), "guessing": guessing_error(test.labels)}


@torch.no_grad()
def _pool_features(
    model: Any, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By stage the features of each image, averaged over places, (N, C), and the labels (N,)."""
    pooled: dict[str, list[torch.Tensor]] = {}
    with record_features(model) as recorded:
        for batch in images.split(_BATCH):
            model.backbone(batch)
            for name, feature in recorded.items():
                if name.startswith("res"):
                    pooled.setdefault(name, []).append(feature.mean((2, 3)))
    return {name: (torch.cat(parts), labels) for name, parts in pooled.items()}


def classify_by_means(
    known: torch.Tensor, known_labels: torch.Tensor, features: torch.Tensor, labels: torch.Tensor
) -> float:
    """The share, in percent, of ``features`` whose nearest mean of a class is that of their own.

    Features are divided by their standard deviation over ``known``, each by its own.

    Shapes:
        known: (M, C) with labels (M,), of which means are made; features: (N, C) with labels (N,).
    """
    scale = known.std(0).clamp(min=1e-6)
    classes = known_labels.unique()
    means = torch.stack([known[known_labels == one].mean(0) for one in classes])
    nearest = torch.cdist(features / scale, means / scale).argmin(1)
    return 100 * (classes[nearest] == labels).float().mean().item()


def _draw(lab: Lab, trained: Trained, model: Any) -> dict[str, list[tuple[str, str]]]:
    """Rows of pictures with captions: the filters of the first layer; of each picture activations and Grad-CAM."""
    classes = lab.data.classes
    taken, labels = lab.pixels(trained, lab.data.images("test", NUM_PICTURES))
    filters = model.backbone.stem.conv1.weight.detach().cpu()
    if trained.cfg.INPUT.FORMAT == "BGR":
        filters = filters.flip(1)
    rows = {"filters": [("first layer", to_uri(draw_filters(filters)))]}
    shown = lab.restore(trained, taken)
    for number in range(len(taken)):
        activations, cams, chosen = look(model, taken[number : number + 1])
        name = classes[labels[number]]
        row = [(name, to_uri(shown[number]))]
        row += [(f"{stage}, activation", to_uri(draw_activation(values))) for stage, values in activations.items()]
        row += [
            (f"{stage}, why {classes[chosen]}", to_uri(draw_cam(shown[number], cam))) for stage, cam in cams.items()
        ]
        rows[f"picture {number + 1}: {name}"] = row
    return rows


def judge(numbers: Sequence[Numbers]) -> list[Claim]:
    """Of each net: what each stage adds to the one before, the worst of which counts."""
    worst = [share(max(net["error"] for net in one["nets"]), one["tested"]) for one in numbers]
    claims = [has_learned(worst, [one["guessing"] for one in numbers])]
    for place, net in enumerate(numbers[0]["nets"]):
        text = f"in {net['name']} each stage tells classes apart better than the one before: the least gain"
        accuracies = [
            {stage: share(right, one["tested"]) for stage, right in one["nets"][place]["accuracy"].items()}
            for one in numbers
        ]
        steps = list(pairwise(net["accuracy"]))
        gains = [
            Claim(
                f"{text}, from {before} to {after}",
                [combine((1, seed[after]), (-1, seed[before])) for seed in accuracies],
                unit="points",
                comparisons=len(steps),
            )
            for before, after in steps
        ]
        claims.append(worst_of(gains))
    return claims


def show(numbers: Sequence[Numbers]) -> Shown:
    """Accuracy by stage, and pictures."""
    nets = numbers[0]["nets"]
    stages = list(nets[0]["accuracy"])
    series = {
        net["name"]: [
            (n + 2, [one["nets"][place]["accuracy"][stage] for one in numbers]) for n, stage in enumerate(stages)
        ]
        for place, net in enumerate(nets)
    }
    label = "nearest class mean, % right"
    chart = charts.draw_bands("features-stages", series, ("stage: res2, res3, ...", label), marker="o")
    rows = [
        (
            net["name"],
            [", ".join(f"{one['nets'][place]['accuracy'][stage]:.1f}" for one in numbers) for stage in stages],
        )
        for place, net in enumerate(nets)
    ]
    pictures = {f"{net['name']}, {title}": row for net in nets for title, row in net["pictures"].items()}
    table = Table(f"{label}, of each seed", ("net", *stages), rows)
    return Shown({"How features tell classes apart": chart.to_svg(f"{label}, by stage")}, [table], pictures)


FEATURES = Experiment(
    name="features",
    title="What do the stages of a net see?",
    statement="From stage to stage features tell classes apart better, in nets of any depth.",
    sources=[
        Source(
            "First layers answer to edges and colours, later ones to parts of objects and to whole classes.",
            "arXiv 1311.2901, section 4",
        ),
        Source(
            "How well a linear classifier tells classes apart by the features of a layer grows steadily from layer to "
            "layer of a trained net.",
            "arXiv 1610.01644, abstract",
        ),
        Source(
            "The gradient of a class score says which places of a feature map raise it (Grad-CAM).",
            "arXiv 1610.02391, section 3",
        ),
    ],
    rule="Features of a stage are averaged over places, and an image counts as the class whose mean over training "
    "images is nearest. In each net, each stage has more test images right than the one before, beyond the margin "
    "(95 % for all stages of a net together). Pictures are of the first seed, and prove nothing. A condition: all nets "
    f"are {LEARNED:.0f} points better than guessing.",
    measure=measure,
    judge=judge,
    show=show,
    sizes=Settings((20, 56)),
    duration="two minutes, and the training of the degradation experiment if it has not been run",
    takes_weights=True,
    draws=("train", "test"),
)
