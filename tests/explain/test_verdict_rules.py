"""What follows from numbers: confirmed, not confirmed, or neither."""

from __future__ import annotations

import math

import pytest

from resnet_det.explain import EXPERIMENTS
from resnet_det.explain.verdicts import CONFIRMED, NOT_CONFIRMED, NOT_SHOWN, Claim, Verdict, resolution


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((2.1, 3.0), "holds"),
        ((2.1, 1.9), "open"),
        ((-0.5, -0.1), "contradicted"),
        ((-0.5, 0.5), "open"),
        ((1.0,), "open"),
        ((2.0, 2.0), "open"),
        ((math.nan, 5.0), "open"),
        ((), "open"),
    ],
)
def test_a_claim_needs_every_seed(values, state):
    assert Claim("more", values, above=2.0, below=0.0).state == state


def test_without_a_lower_limit_there_is_hardly_anything_open():
    assert Claim("more", (1.0, 1.5), above=2.0).state == "contradicted"
    assert Claim("more", (1.0, 2.5), above=2.0).state == "open"


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ([(1.0, False), (2.0, False)], CONFIRMED),
        ([(1.0, False), (-2.0, False)], NOT_CONFIRMED),
        ([(1.0, False), (0.0, False)], NOT_SHOWN),
        ([(1.0, True), (-2.0, False)], NOT_CONFIRMED),
        ([(-1.0, True), (-2.0, False)], NOT_SHOWN),  # where the condition does not hold, nothing is contradicted
        ([(-1.0, True), (2.0, False)], NOT_SHOWN),
        ([(1.0, True)], NOT_SHOWN),
        ([], NOT_SHOWN),
    ],
)
def test_claims_together(claims, outcome):
    made = [Claim("c", (value,), above=0.5, below=-0.5, is_condition=condition) for value, condition in claims]
    verdict = Verdict(made)
    assert verdict.outcome == outcome
    assert verdict.sentence.lower().startswith(outcome)


def test_the_sentence_has_the_numbers():
    claims = [Claim("a beats b", (3.0, 5.0), unit="points"), Claim("c beats d", (-3.25,), digits=2)]
    assert Verdict(claims).sentence == (
        "Not confirmed: a beats b (4.0 points, 3.0 to 5.0 over 2 seeds); not so: c beats d (-3.25, one seed)."
    )
    assert Verdict(claims).headline == "Not confirmed: not so: c beats d (-3.25, one seed)."
    assert Verdict(claims[:1] * 2).headline == "Confirmed: all 2 claims hold."
    assert Verdict([*claims[:1], Claim("unknown", ())]).headline == "Does not show at this size: 1 of 2 claims holds."


def test_resolution_is_that_of_two_shares():
    # Two independent samples of 400 about 20 %: the standard deviation of the difference, by simulation.
    import numpy as np

    draws = np.random.default_rng(0).binomial(400, 0.2, (2, 100_000)) / 4
    assert resolution(20.0, 400) == pytest.approx(1.96 * (draws[0] - draws[1]).std(), rel=0.02)
    assert resolution(0.0, 400) > 0


def degradation_numbers(errors, *, probed=10_000):
    """Of one seed: the training errors of plain and residual nets of 20 and 56 layers."""
    nets = []
    for (kind, depth), error in errors.items():
        point = {"iteration": 8, "train_error": error, "train_loss": 1.0, "test_error": error, "test_loss": 1.0}
        nets.append({"kind": kind, "depth": depth, "curve": [point]})
    rest = {"images_an_epoch": 8, "batch": 4, "probed": {"train": probed, "test": probed}, "classes": 10}
    return {"nets": nets, **rest}


PAPER = {("plain", 20): 4.0, ("plain", 56): 8.0, ("residual", 20): 2.0, ("residual", 56): 0.5}


@pytest.mark.parametrize(
    ("changes", "probed", "outcome"),
    [
        ({}, 10_000, CONFIRMED),
        ({("plain", 56): 2.0}, 10_000, NOT_CONFIRMED),
        ({("residual", 56): 6.0}, 10_000, NOT_CONFIRMED),
        ({}, 100, NOT_SHOWN),  # images, which tell no such difference from chance
        ({("plain", 20): 88.0, ("plain", 56): 90.0}, 10_000, NOT_SHOWN),  # nothing was learned
    ],
)
def test_degradation(changes, probed, outcome):
    numbers = [degradation_numbers({**PAPER, **changes}, probed=probed)] * 2
    assert Verdict(EXPERIMENTS["degradation"].judge(numbers)).outcome == outcome


def gradient_numbers(spreads, growths):
    """Of one seed: nets of 20 and 110 layers."""
    nets = [
        {"kind": kind, "depth": depth, "when": "at the start", "spread": spreads[kind] if depth == 110 else 0.8}
        | {"growth": growths[kind] * depth / 110, "backward_growth": 0.0}
        for kind in spreads
        for depth in (20, 110)
    ]
    return {"nets": nets}


SPREADS = {"residual with BN": 1.8, "plain with BN": 8.0, "residual without norm": 7.5, "plain without norm": 1.8}
GROWTHS = {"residual with BN": 0.7, "plain with BN": 0.0, "residual without norm": 7.5, "plain without norm": -3.9}


@pytest.mark.parametrize(
    ("spreads", "growths", "outcome"),
    [
        ({}, {}, CONFIRMED),
        ({"plain with BN": 1.0}, {}, NOT_CONFIRMED),
        ({"plain with BN": 2.5}, {}, NOT_SHOWN),
        ({"residual with BN": 9.0, "plain with BN": 20.0}, {}, NOT_CONFIRMED),
        ({"residual with BN": 3.0, "plain with BN": 20.0}, {}, NOT_SHOWN),
        ({}, {"plain without norm": 3.9}, NOT_CONFIRMED),
        ({}, {"residual without norm": 1.0}, NOT_SHOWN),
    ],
)
def test_gradients(spreads, growths, outcome):
    numbers = [gradient_numbers(SPREADS | spreads, GROWTHS | growths)] * 2
    assert Verdict(EXPERIMENTS["gradients"].judge(numbers)).outcome == outcome


def trained_nets(values, **fields):
    """A condition holds: all have learned."""
    return {"nets": [{"error": 20.0, **net} for net in values], "classes": 10, **fields}


def identity_numbers(plain, shallow, deep, error=20.0):
    nets = [("plain-56", 56, plain), ("residual-20", 20, shallow), ("residual-56", 56, deep)]
    return trained_nets(
        [
            {"name": name, "depth": depth, "plain": name[0] == "p", "error": error}
            | {"layers": [value, 2 * value], "blocks": [] if name[0] == "p" else [value]}
            for name, depth, value in nets
        ]
    )


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (identity_numbers(1.0, 0.5, 0.3), CONFIRMED),
        (identity_numbers(0.2, 0.5, 0.3), NOT_CONFIRMED),
        (identity_numbers(1.0, 0.3, 0.5), NOT_CONFIRMED),
        (identity_numbers(1.0, 0.3, 0.5, error=89.0), NOT_SHOWN),
    ],
)
def test_identity(numbers, outcome):
    assert Verdict(EXPERIMENTS["identity"].judge([numbers])).outcome == outcome


def lesion_numbers(plain, residual, whole=10.0):
    """Errors without each of three blocks."""
    nets = [("plain-56", True, plain), ("residual-56", False, residual)]
    return trained_nets(
        [
            {"name": name, "depth": 56, "plain": is_plain, "whole": whole}
            | {"without": [[str(place), error] for place, error in enumerate(errors)]}
            for name, is_plain, errors in nets
            if errors
        ]
    )


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (lesion_numbers([90, 90, 60], [11, 12, 80]), CONFIRMED),  # one important block changes no median
        (lesion_numbers([90, 90, 60], [70, 75, 80]), NOT_CONFIRMED),
        (lesion_numbers([12, 12, 12], [11, 12, 80]), NOT_CONFIRMED),
        (lesion_numbers([], [11, 12, 80]), NOT_SHOWN),
        (lesion_numbers([90, 90, 90], [88, 89, 90], whole=88.0), NOT_SHOWN),
    ],
)
def test_lesion(numbers, outcome):
    assert Verdict(EXPERIMENTS["lesion"].judge([numbers])).outcome == outcome


def thousand_numbers(first, last, saved, loss=2.3):
    memory = [{"tensors": 8.0, "loss": 2.3}, {"tensors": 8.0 / saved, "loss": loss}]
    return {"depth": 1202, "losses": [[20, first], [100, last]], "memory": memory}


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (thousand_numbers(2.4, 2.1, 5.0), CONFIRMED),
        (thousand_numbers(2.4, 2.5, 5.0), NOT_CONFIRMED),
        (thousand_numbers(2.4, 2.38, 5.0), NOT_SHOWN),
        (thousand_numbers(2.4, 2.1, 0.9), NOT_CONFIRMED),
        (thousand_numbers(2.4, 2.1, 5.0, loss=2.2), NOT_CONFIRMED),
    ],
)
def test_thousand(numbers, outcome):
    assert Verdict(EXPERIMENTS["thousand"].judge([numbers])).outcome == outcome


def returns_numbers(errors, aps=(), tested=10_000):
    nets = [{"test_error": error, "mmacs": 10.0 * 2**place, "depth": 8} for place, error in enumerate(errors)]
    detectors = [{"name": str(ap), "ap": ap, "gmacs": 10.0 * 2**place} for place, ap in enumerate(aps)]
    return {"nets": nets, "tested": tested, "detectors": detectors}


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (returns_numbers([12, 8, 7]), CONFIRMED),
        (returns_numbers([12, 8, 7], [30, 36, 38]), CONFIRMED),
        (returns_numbers([12, 8, 7], [30, 31, 38]), NOT_CONFIRMED),
        (returns_numbers([12, 11, 5]), NOT_CONFIRMED),
        (returns_numbers([7, 8, 12]), NOT_CONFIRMED),
        (returns_numbers([12, 8, 7], tested=100), NOT_SHOWN),
        (returns_numbers([12, 8]), NOT_SHOWN),
    ],
)
def test_returns(numbers, outcome):
    assert Verdict(EXPERIMENTS["returns"].judge([numbers])).outcome == outcome


OVERFITTED = {(8, 5): (5, 60), (32, 5): (0, 60), (8, 100): (20, 30), (32, 100): (10, 20)}


def overfit_numbers(changes=(), remedies=(58, 59, 50), tested=5000):
    nets = [
        {"depth": depth, "share": share, "remedy": "", "train_error": train, "test_error": test}
        for (depth, share), (train, test) in (OVERFITTED | dict(changes)).items()
    ]
    for remedy, error in zip(("stochastic depth", "weight decay", "augmentation"), remedies, strict=True):
        nets.append({"depth": 32, "share": 5, "remedy": remedy, "train_error": 5, "test_error": error})
    return {"nets": nets, "tested": tested}


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (overfit_numbers(), CONFIRMED),
        (overfit_numbers({(32, 5): (58, 60)}), NOT_CONFIRMED),
        (overfit_numbers({(32, 5): (0, 40)}), NOT_CONFIRMED),
        (overfit_numbers(remedies=(66, 67, 68)), NOT_CONFIRMED),
        (overfit_numbers(remedies=(59, 60, 61)), NOT_SHOWN),
        (overfit_numbers(tested=50), NOT_SHOWN),
    ],
)
def test_overfit(numbers, outcome):
    verdict = Verdict(EXPERIMENTS["overfit"].judge([numbers]))
    assert verdict.outcome == outcome
    assert outcome != CONFIRMED or "most of all augmentation (10.0 points" in verdict.sentence


@pytest.mark.parametrize(
    ("accuracies", "outcome"), [((30, 50, 80), CONFIRMED), ((30, 25, 80), NOT_CONFIRMED), ((30, 31, 80), NOT_SHOWN)]
)
def test_features(accuracies, outcome):
    net = {"name": "residual-20", "accuracy": dict(zip(("res2", "res3", "res4"), accuracies, strict=True))}
    assert Verdict(EXPERIMENTS["features"].judge([trained_nets([net], tested=1000)])).outcome == outcome
