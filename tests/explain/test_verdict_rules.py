"""What follows from numbers: confirmed, not confirmed, or neither."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnet_det.explain import EXPERIMENTS
from resnet_det.explain.estimates import Estimate, combine, fit_slope, guessing_error, normal_quantile, share
from resnet_det.explain.step_memory import StepCost
from resnet_det.explain.thousand import measure_agreement
from resnet_det.explain.verdicts import CONFIRMED, DRAWS, NOT_CONFIRMED, NOT_SHOWN, Claim, Verdict, worst_of


def exact(*values):
    return [Estimate(value, 0.0) for value in values]


def judge(name, *numbers):
    return Verdict(EXPERIMENTS[name].judge(numbers))


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((3.0, 3.5), "holds"),
        ((2.1, 3.0), "open"),  # the seeds differ by more than what is left above the limit
        ((2.1, 1.9), "open"),
        ((-0.6, -0.5), "contradicted"),
        ((-0.9, -0.1), "open"),
        ((-0.5, 0.5), "open"),
        ((2.1,), "holds"),
        ((1.0,), "open"),
        ((2.0, 2.0), "open"),
        ((math.nan, 5.0), "open"),
        ((), "open"),
    ],
)
def test_a_claim_needs_its_limit_and_the_spread_of_seeds(values, state):
    assert Claim("more", exact(*values), above=2.0, below=0.0).state == state


def test_more_seeds_that_spread_as_much_tell_more():
    assert Claim("more", exact(1.0, 3.0)).state == "open"
    assert Claim("more", exact(1.0, 3.0, 1.0, 3.0)).state == "holds"
    assert Claim("more", exact(*[3.0] * 9, -0.1)).state == "open"  # every seed must agree


def test_the_margin_is_of_the_images_the_value_is_of():
    # Two independent samples of 400 about 20 %: the standard deviation of the difference, by simulation.
    draws = np.random.default_rng(0).binomial(400, 0.2, (4, 100_000)) / 4
    two = combine((1, share(20.0, 400)), (-1, share(20.0, 400)))
    four = combine(*((sign, share(20.0, 400)) for sign in (1, -1, -1, 1)))
    assert two.deviation == pytest.approx((draws[0] - draws[1]).std(), rel=0.02)
    assert four.deviation == pytest.approx((draws[0] - draws[1] - draws[2] + draws[3]).std(), rel=0.02)
    claim = Claim("more", [two])
    assert claim.margin == pytest.approx(1.96 * two.deviation, rel=1e-3)
    assert share(0.0, 400).deviation > 0
    assert share(100.0, 1).deviation > 0


def test_several_comparisons_share_the_five_percent():
    # The greatest of three values of pure chance is beyond the margin of three in 5 % of cases at most, both sides.
    values = np.random.default_rng(0).normal(size=(3, 100_000))
    assert normal_quantile() == pytest.approx(1.96, abs=0.001)
    assert (np.abs(values).max(0) > normal_quantile(3)).mean() == pytest.approx(0.05, abs=0.003)
    lead = Estimate(2.1, 1.0)
    assert [Claim("best", [lead], comparisons=count).state for count in (1, 3)] == ["holds", "open"]


def test_one_value_of_unknown_error_tells_nothing():
    claim = Claim("x", [Estimate(0.01)])
    assert (claim.margin, claim.state) == (None, "open")
    assert Verdict([claim]).sentence == (
        "Does not show at this size: its error is not known: x (0.0, one seed: no spread known)."
    )
    assert Claim("x", [Estimate(-5.0)]).state == "open"
    assert Claim("x", [Estimate(3.0), Estimate(3.5)]).margin == pytest.approx(0.75)  # seeds tell
    assert combine((1, Estimate(3.0)), (1, Estimate(2.0, 1.0))) == Estimate(5.0, None)


def test_the_coverage_of_three_standard_errors_is_as_documented():
    draws = np.random.default_rng(0).normal(size=(100_000, 5))
    for seeds, coverage in ((2, 0.80), (3, 0.90), (5, 0.96)):
        some = draws[:, :seeds]
        within = np.abs(some.mean(1)) < 3 * some.std(1, ddof=1) / math.sqrt(seeds)
        assert within.mean() == pytest.approx(coverage, abs=0.01)


def test_noise_does_not_confirm_that_nothing_happens():
    def state(value, deviation):
        return Claim("no loss of more than a point", [Estimate(value, deviation)], above=-1.0).state

    assert [state(0.0, deviation) for deviation in (0.1, 5.0)] == ["holds", "open"]
    assert [state(-3.0, deviation) for deviation in (0.1, 5.0)] == ["contradicted", "open"]


def test_the_worst_claim_is_one_against_or_open_or_the_lowest():
    high, low, against = (Claim(str(value), [Estimate(value, 0.1)]) for value in (5.0, 3.0, -2.0))
    is_open = Claim("open", [Estimate(4.0, 9.0)])
    assert worst_of([high, low]) is low
    assert worst_of([high, is_open, low]) is is_open
    assert worst_of([is_open, against, low]) is against


def test_a_slope_is_that_of_least_squares():
    places, values = [0.0, 1.0, 2.5, 7.0], [3.0, 1.0, 4.0, -2.0]
    slope = sum(weight * value for weight, value in zip(fit_slope(places), values, strict=True))
    assert slope == pytest.approx(np.polyfit(places, values, 1)[0])


def test_guessing_is_to_name_the_commonest_class():
    assert guessing_error(np.repeat(np.arange(10), 7)) == pytest.approx(90)
    assert guessing_error(np.array([0, 0, 0, 1])) == 25


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
    made = [Claim("c", exact(value), above=0.5, below=-0.5, is_condition=condition) for value, condition in claims]
    verdict = Verdict(made)
    assert verdict.outcome == outcome
    assert verdict.sentence.lower().startswith(outcome)


def test_the_sentence_has_the_numbers():
    claims = [Claim("a beats b", exact(3.6, 4.4), unit="points"), Claim("c beats d", exact(-3.25), digits=2)]
    assert Verdict(claims).sentence == (
        "Not confirmed: a beats b (4.0 points, 3.6 to 4.4 over 2 seeds; margin 1.2); "
        "not so: c beats d (−3.25, one seed: no spread known)."  # noqa: RUF001 (a minus)
    )
    assert Verdict(claims).headline == (
        "Not confirmed: not so: c beats d (−3.25, one seed: no spread known)."  # noqa: RUF001 (a minus)
    )
    assert Verdict(claims[:1] * 2).headline == "Confirmed: all 2 claims hold."
    assert Verdict([*claims[:1], Claim("unknown", ())]).headline == "Does not show at this size: 1 of 2 claims holds."
    assert Claim("unknown", exact(math.nan)).sentence == "not measured: unknown"


def test_what_is_open_is_told_for_what_it_is():
    close = [Estimate(1.0, 1.0)]
    assert Claim("a beats b", close).sentence == (
        "too close to tell: a beats b (1.0, one seed: no spread known; margin 2.0)"
    )
    unmet = Claim("learned", exact(-0.01), above=10.0, is_condition=True)
    assert unmet.sentence == "a condition that is not met: learned (0.0, one seed: no spread known; limit 10.0)"
    same = Claim("a beats b", exact(3.0, 3.0), repeats=DRAWS).sentence
    assert same == "a beats b (3.0, 3.0 to 3.0 over 2 draws of images for the same nets)"


def test_a_seed_that_failed_leaves_nothing_shown():
    verdict = Verdict([Claim("a", exact(1.0))], ["the training of plain-56, seed 1, diverged"])
    assert verdict.outcome == NOT_SHOWN
    assert verdict.headline == "Does not show at this size: the training of plain-56, seed 1, diverged."
    assert verdict.sentence.startswith("Does not show at this size: the training of plain-56, seed 1, diverged; a (")


def degradation_numbers(errors, *, probed=10_000, guessing=90.0):
    """Of one seed: the training errors of plain and residual nets of 20 and 56 layers."""
    nets = []
    for (kind, depth), error in errors.items():
        point = {"iteration": 8, "train_error": error, "train_loss": 1.0, "test_error": error, "test_loss": 1.0}
        nets.append({"kind": kind, "depth": depth, "curve": [point]})
    return {"nets": nets, "images_an_epoch": 8, "batch": 4, "probed": probed, "guessing": guessing}


PAPER = {("plain", 20): 4.0, ("plain", 56): 8.0, ("residual", 20): 2.0, ("residual", 56): 0.5}


@pytest.mark.parametrize(
    ("changes", "probed", "outcome"),
    [
        ({}, 10_000, CONFIRMED),
        ({("plain", 56): 2.0}, 10_000, NOT_CONFIRMED),
        ({("plain", 56): 4.8}, 10_000, NOT_SHOWN),  # less than a point more
        ({("residual", 56): 6.0}, 10_000, NOT_CONFIRMED),
        ({("residual", 56): 2.9}, 10_000, NOT_SHOWN),  # a quarter of what the plain net gets is 1 point
        ({}, 100, NOT_SHOWN),  # images, which tell no such difference from chance
        ({("residual", 56): 9.5, ("plain", 56): 9.0}, 100, NOT_SHOWN),  # many images would contradict, few confirm not
        ({("plain", 20): 88.0, ("plain", 56): 90.0}, 10_000, NOT_SHOWN),  # nothing was learned
    ],
)
def test_degradation(changes, probed, outcome):
    numbers = [degradation_numbers({**PAPER, **changes}, probed=probed)] * 2
    assert judge("degradation", *numbers).outcome == outcome


def test_learning_is_measured_by_the_commonest_class():
    few = {key: 10 + error for key, error in PAPER.items()}
    assert judge("degradation", degradation_numbers(few)).outcome == CONFIRMED
    uneven = judge("degradation", degradation_numbers(few, guessing=20.0))
    assert uneven.outcome == NOT_SHOWN
    assert "a condition that is not met: plain-20 is 10 points better than guessing (6.0 points" in uneven.sentence


def gradient_numbers(spreads, growths):
    """Of one seed: spreads of nets of 20, 56 and 110 layers, with 8, 26 and 53 steps from block to block."""
    nets = [
        {"kind": kind, "depth": depth, "when": "at the start", "spread": spread, "backward_growth": 0.0}
        | {"growth": growths[kind] * depth / 110}
        for kind, found in spreads.items()
        for depth, spread in zip((20, 56, 110), found, strict=True)
    ]
    return {"nets": nets}


SPREADS = {
    "residual with BN": (0.7, 1.34, 1.7),
    "plain with BN": (1.24, 4.1, 7.85),
    "residual without norm": (0.7, 3.7, 8.0),
    "plain without norm": (0.6, 0.9, 1.6),
}
GROWTHS = {"residual with BN": 0.7, "plain with BN": 0.0, "residual without norm": 7.5, "plain without norm": -3.9}


@pytest.mark.parametrize(
    ("spreads", "growths", "outcome"),
    [
        ({}, {}, CONFIRMED),
        ({"plain with BN": (1.24, 1.25, 1.26)}, {}, NOT_CONFIRMED),
        ({"plain with BN": (6.0, 7.0, 8.0)}, {}, NOT_CONFIRMED),  # large, and not exponential
        ({"plain with BN": (2.0, 5.0, 8.6)}, {}, NOT_SHOWN),  # two thirds of the decades a block are left
        ({"residual with BN": (1.1, 3.6, 7.3), "plain with BN": (3.0, 10.0, 20.0)}, {}, NOT_CONFIRMED),
        ({"residual with BN": (0.9, 2.0, 3.7), "plain with BN": (3.0, 10.0, 20.0)}, {}, NOT_SHOWN),
        ({}, {"plain without norm": 3.9}, NOT_CONFIRMED),
        ({}, {"residual without norm": 1.0}, NOT_SHOWN),
    ],
)
def test_gradients(spreads, growths, outcome):
    numbers = [gradient_numbers(SPREADS | spreads, GROWTHS | growths)] * 2
    assert judge("gradients", *numbers).outcome == outcome


def test_constant_spread_a_block_is_exponential_growth():
    numbers = gradient_numbers(SPREADS | {"plain with BN": (0.8, 2.6, 5.3)}, GROWTHS)
    assert "decades a block stay (100.0 % of them are left" in judge("gradients", numbers).sentence


def trained_nets(values, **fields):
    """A condition holds: all have learned."""
    return {"nets": [{"error": 20.0, **net} for net in values], "guessing": 90.0, "tested": 1000, **fields}


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
        ([identity_numbers(1.0, 0.5, 0.3)], NOT_SHOWN),  # one seed: how far another would be is not known
        ([identity_numbers(1.0, 0.5, 0.3), identity_numbers(1.0, 0.5, 0.32)], CONFIRMED),
        ([identity_numbers(1.0, 0.5, 0.3), identity_numbers(1.0, 0.5, 0.49)], NOT_SHOWN),  # seeds differ too much
        ([identity_numbers(0.2, 0.5, 0.3)] * 2, NOT_CONFIRMED),
        ([identity_numbers(1.0, 0.3, 0.45)] * 2, NOT_CONFIRMED),
        ([identity_numbers(2.0, 1.5, 0.8)] * 2, NOT_CONFIRMED),  # less than others, and more than a little
        ([identity_numbers(1.0, 0.3, 0.5, error=89.0)] * 2, NOT_SHOWN),
    ],
)
def test_identity(numbers, outcome):
    verdict = judge("identity", *numbers)
    assert verdict.outcome == outcome
    assert ("one seed: no spread known" in verdict.sentence) == (len(numbers) == 1)


def test_identity_of_plain_nets_alone_shows_nothing():
    numbers = identity_numbers(1.0, 0.5, 0.3)
    plain = {**numbers, "nets": [net for net in numbers["nets"] if net["plain"]]}
    verdict = judge("identity", plain)
    assert verdict.outcome == NOT_SHOWN
    assert "not measured: a block adds less than half of its input (no residual net was given)" in verdict.sentence
    assert EXPERIMENTS["identity"].show([plain]).tables[0].rows[0][0] == "plain-56"


def test_identity_says_what_its_number_is():
    sentence = judge("identity", *[identity_numbers(1.0, 0.5, 0.3)] * 2).sentence
    assert "a block of residual-56 adds less than half of its input: its input less what it adds, in % of" in sentence
    assert "(70.0 %" in sentence


def lesion_numbers(plain, residual, whole=10.0, tested=1000):
    """Errors without each block."""
    nets = [("plain-56", True, plain), ("residual-56", False, residual)]
    return trained_nets(
        [
            {"name": name, "depth": 56, "plain": is_plain, "whole": whole}
            | {"without": [[str(place), error] for place, error in enumerate(errors)]}
            for name, is_plain, errors in nets
            if errors
        ],
        tested=tested,
    )


LOST, FINE = [88] * 9, [12] * 9


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (lesion_numbers([*LOST, 12], [*FINE, 88]), CONFIRMED),  # one important block of ten
        (lesion_numbers([*LOST, 12], [*FINE[1:], 88, 88]), NOT_CONFIRMED),  # two: the median is as before
        (lesion_numbers([*LOST[1:], 12, 12], [*FINE, 88]), NOT_CONFIRMED),
        (lesion_numbers([*LOST, 88], [*FINE[1:], 49, 88]), NOT_SHOWN),  # half of the lead is lost at 50 %
        (lesion_numbers([15] * 10, [11] * 10), NOT_CONFIRMED),  # hurt, and more so, but not broken
        (lesion_numbers([70] * 10, [11] * 10, tested=20), NOT_SHOWN),
        (lesion_numbers([], [*FINE, 88]), NOT_SHOWN),
        (lesion_numbers([90] * 10, [88] * 10, whole=88.0), NOT_SHOWN),
    ],
)
def test_lesion(numbers, outcome):
    assert judge("lesion", numbers).outcome == outcome


def test_lesion_tells_the_median_the_worst_and_how_many():
    sentence = judge("lesion", lesion_numbers([*LOST, 12], [*FINE, 82])).sentence
    assert "residual-56 works without nearly any one of its blocks: works without 9 of 10, loses 2 % in the" in sentence
    assert "median and 90 % at worst (38.0 points of error, one seed" in sentence


def thousand_numbers(loss=1.8, error=60.0, saved=80.0, agreement=100.0, depth=1202, probed=200):
    memory = [{"tensors": 8.0}, {"tensors": 8.0 * (1 - saved / 100)}]
    numbers = {"depth": depth, "classes": 10, "losses": [[20, 2.4], [100, loss]], "end": {"train_error": error}}
    return {**numbers, "probed": probed, "guessing": 90.0, "memory": memory, "agreement": agreement}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, CONFIRMED),
        ({"loss": 2.2}, NOT_SHOWN),  # from 2.4, which is above ln(10) = 2.30: that falls, and nothing is learned
        ({"loss": 2.5}, NOT_CONFIRMED),
        ({"error": 78.0}, NOT_SHOWN),  # 12 points below guessing, with a margin of 6
        ({"error": 98.0}, NOT_CONFIRMED),
        ({"error": 60.0, "probed": 10}, NOT_SHOWN),
        ({"saved": 40.0}, NOT_SHOWN),
        ({"saved": -5.0}, NOT_CONFIRMED),
        ({"agreement": 90.0}, NOT_CONFIRMED),
        ({"depth": 56}, NOT_SHOWN),
    ],
)
def test_thousand(changes, outcome):
    assert judge("thousand", *[thousand_numbers(**changes)] * 2).outcome == outcome


def test_what_is_counted_needs_no_second_seed():
    states = [claim.state for claim in EXPERIMENTS["thousand"].judge([thousand_numbers()])]
    assert states == ["holds", "open", "holds", "holds", "holds"]  # the loss of one seed has no known error


def test_a_shallow_net_is_named_for_what_it_is():
    sentence = judge("thousand", thousand_numbers(depth=56)).sentence
    assert "a condition that is not met: residual-56 has 1000 layers or more (56 layers" in sentence


@pytest.mark.parametrize(
    ("loss", "gradient", "agreement"), [(2.0, [3, 4], 100), (2.2, [3, 4], 90), (2.0, [3, 3], 80), (2.0, [-3, -4], -100)]
)
def test_agreement_is_of_loss_and_gradient(loss, gradient, agreement):
    first, second = (StepCost(1.0, None, of, np.array(by, np.float32)) for of, by in ((2.0, [3, 4]), (loss, gradient)))
    assert measure_agreement(first, second) == pytest.approx(agreement)


def returns_numbers(errors, aps=(), tested=10_000, deviation=0.0):
    nets = [
        {"test_error": error, "mmacs": 10.0 * 2**place, "depth": 8 + 6 * place} for place, error in enumerate(errors)
    ]
    detectors = [
        {"name": str(ap), "ap": ap, "deviation": deviation, "gmacs": 10.0 * 2**place} for place, ap in enumerate(aps)
    ]
    return {"nets": nets, "tested": tested, "detectors": detectors}


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ([returns_numbers([12, 8, 7])], CONFIRMED),
        ([returns_numbers([14, 10, 8.5, 8.4])], CONFIRMED),  # the last step is within the margin
        ([returns_numbers([14, 8, 6, 8.4])], NOT_CONFIRMED),  # the ends are as before, and the last step takes away
        ([returns_numbers([14, 10, 9.9, 5])], NOT_CONFIRMED),  # the last step brings most for what it costs
        ([returns_numbers([12, 8, 7], [30, 36, 38])], CONFIRMED),
        ([returns_numbers([12, 8, 7], [30, 36, 38], deviation=3.0)], NOT_SHOWN),
        ([returns_numbers([12, 8, 7], [30, 36, 38], deviation=None)], NOT_SHOWN),  # files without intervals
        ([returns_numbers([12, 8, 7.5], tested=1000)], NOT_SHOWN),  # a step of half a point may well lose one
        ([returns_numbers([12, 8, 7], [30, 31, 38])], NOT_CONFIRMED),
        ([returns_numbers([12, 11, 5])], NOT_CONFIRMED),
        ([returns_numbers([7, 8, 12])], NOT_CONFIRMED),
        ([returns_numbers([12, 8, 7], tested=100)], NOT_SHOWN),
        ([returns_numbers([12, 8, 7]), returns_numbers([9, 8.5, 8])], NOT_SHOWN),  # seeds differ too much
        ([returns_numbers([12, 8])], NOT_SHOWN),
    ],
)
def test_returns(numbers, outcome):
    assert judge("returns", *numbers).outcome == outcome


def test_detectors_without_an_interval_say_so():
    sentence = judge("returns", *[returns_numbers([12, 8, 7], [30, 36, 38], deviation=None)] * 2).sentence
    told = "its error is not known: detectors get more accurate with depth: by the line through all depths (4.0 points"
    assert told in sentence
    assert "one measurement: no spread known" in sentence


def find_claim(claims, text):
    (found,) = (claim for claim in claims if text in claim.text)
    return found


def test_a_step_is_the_same_one_for_all_seeds():
    # Each seed loses two points by another step; no step loses them in the mean.
    numbers = [returns_numbers([20, 10, 12, 6]), returns_numbers([20, 10, 6, 8])]
    claim = find_claim(EXPERIMENTS["returns"].judge(numbers), "takes more than 1 point of accuracy away")
    assert claim.text.endswith("the worst one, from residual-20 to residual-26")
    assert [one.value for one in claim.values] == [6, -2]
    assert (claim.comparisons, claim.above, claim.state) == (3, -1.0, "open")


def test_prices_are_compared_in_points():
    claim = find_claim(EXPERIMENTS["returns"].judge([returns_numbers([12, 8, 7])]), "at the price of the step before")
    assert claim.text.endswith("from residual-14 to residual-20")
    assert claim.values[0].value == pytest.approx(4 * 2 - 1)  # twice the multiply-adds of the step before


def test_stages_are_compared_over_all_seeds():
    accuracies = (30, 25, 80), (30, 50, 45)  # each seed loses five points by another stage
    nets = [{"name": "n", "accuracy": dict(zip(("res2", "res3", "res4"), one, strict=True))} for one in accuracies]
    claim = EXPERIMENTS["features"].judge([trained_nets([net]) for net in nets])[-1]
    assert claim.text.endswith("the least gain, from res3 to res4")
    assert [one.value for one in claim.values] == [55, -5]


def test_remedies_win_accuracy_back():
    assert "each win back part of the accuracy lost" in EXPERIMENTS["overfit"].statement


OVERFITTED = {(8, 5): (5, 60), (32, 5): (0, 60), (8, 100): (20, 30), (32, 100): (10, 20)}


def overfit_numbers(changes=(), remedies=(55, 56, 50), tested=5000, probed=5000):
    nets = [
        {"depth": depth, "share": part, "remedy": "", "train_error": train, "test_error": test, "probed": probed}
        for (depth, part), (train, test) in (OVERFITTED | dict(changes)).items()
    ]
    for remedy, error in zip(("stochastic depth", "weight decay", "augmentation"), remedies, strict=True):
        nets.append({"depth": 32, "share": 5, "remedy": remedy, "train_error": 5, "test_error": error})
    return {"nets": nets, "tested": tested}


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        (overfit_numbers(), CONFIRMED),
        (overfit_numbers({(32, 5): (58, 60)}), NOT_CONFIRMED),  # it does not learn them by heart
        (overfit_numbers({(32, 5): (4, 60)}, probed=250), NOT_SHOWN),  # of its own few images 96 % tell less
        (overfit_numbers({(32, 5): (0, 40)}), NOT_CONFIRMED),
        (overfit_numbers({(32, 5): (0, 57)}, remedies=(50, 50, 50)), NOT_SHOWN),  # 3 of 10 points are left
        (overfit_numbers({(32, 100): (10, 31)}), NOT_SHOWN),  # there is no lead to lose
        (overfit_numbers(remedies=(66, 67, 68)), NOT_CONFIRMED),
        (overfit_numbers(remedies=(55, 66, 50)), NOT_CONFIRMED),  # the best of three does not speak for all
        (overfit_numbers(remedies=(57.8, 50, 50)), NOT_SHOWN),  # beyond 1.96 standard errors, and not beyond 2.39
        (overfit_numbers(tested=50), NOT_SHOWN),
    ],
)
def test_overfit(numbers, outcome):
    assert judge("overfit", numbers).outcome == outcome


@pytest.mark.parametrize(
    ("accuracies", "outcome"), [((30, 50, 80), CONFIRMED), ((30, 25, 80), NOT_CONFIRMED), ((30, 31, 80), NOT_SHOWN)]
)
def test_features(accuracies, outcome):
    net = {"name": "residual-20", "accuracy": dict(zip(("res2", "res3", "res4"), accuracies, strict=True))}
    assert judge("features", trained_nets([net])).outcome == outcome
