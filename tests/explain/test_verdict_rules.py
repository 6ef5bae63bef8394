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
