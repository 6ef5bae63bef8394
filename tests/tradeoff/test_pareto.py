"""The Pareto front against brute force, and steps by hand."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_det.evaluation.bootstrap import Interval
from resnet_det.tradeoff.cost import Cost, _count_outside, extra_cost, find_axis
from resnet_det.tradeoff.pareto import find_cheapest_good, find_front, find_steps


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_beats(seed):
    rng = np.random.default_rng(seed)
    costs, values = rng.integers(1, 8, (2, 12)).astype(float)  # whole numbers, so that many are equal
    expected = set()
    for i in range(12):
        is_beaten = False
        for j in range(12):
            cheaper_or_equal, better_or_equal = costs[j] <= costs[i], values[j] >= values[i]
            strictly = costs[j] < costs[i] or values[j] > values[i]
            is_beaten |= bool(cheaper_or_equal and better_or_equal and strictly)
        if not is_beaten:
            expected.add(i)
    front = find_front(list(costs), list(values))
    assert set(front) == expected
    assert [costs[place] for place in front] == sorted(costs[front])


def make_gain(values, half_width):
    def gain(first, second):
        value = values[second] - values[first]
        return Interval(value, value - half_width, value + half_width)

    return gain


def make_extra(costs, slack=0.5):
    def extra(first, second):
        value = costs[second] - costs[first]
        return Interval(value, value - slack, value + slack)

    return extra


def test_each_step_is_against_the_best_of_the_cheaper_ones():
    #        R-50  R-18  R-101 R-34
    costs = [30.0, 10.0, 60.0, 20.0]
    values = [38.0, 32.0, 39.5, 31.0]  # R-34 is dearer than R-18 and worse
    steps = find_steps(costs, values, make_gain(values, 2.0), make_extra(costs))
    assert [(step.place, step.reference) for step in steps] == [(3, 1), (0, 1), (2, 0)]
    assert [step.judgement for step in steps] == ["chance", "gain", "chance"]
    assert [step.times for step in steps] == [2.0, 3.0, 2.0]
    # AP for each extra ms, by hand: 6 AP for 20 ms, from 4 to 8; 1.5 AP for 30 ms, from -0.5 to 3.5.
    assert steps[1].gain_per_extra == Interval(6 / 20, 4 / 20, 8 / 20)
    assert steps[2].gain_per_extra == Interval(1.5 / 30, -0.5 / 30, 3.5 / 30)
    assert find_front(costs, values) == [1, 0, 2]
    gain = make_gain(values, 2.0)
    assert find_cheapest_good([1, 3, 0, 2], gain) == 0  # R-101 is not clearly better than R-50, which beats R-18
    assert find_cheapest_good([1, 3, 0, 2], make_gain(values, 1.0)) == 2
    assert find_cheapest_good([1, 3, 0, 2], make_gain(values, 9.0)) == 1


def test_no_rate_without_a_cost_and_a_clear_loss_is_one():
    costs, values = [10.0, 10.2], [30.0, 20.0]
    (step,) = find_steps(costs, values, make_gain(values, 1.0), make_extra(costs))
    assert step.gain_per_extra is None
    assert step.judgement == "loss"


def test_one_disturbed_round_of_nine_does_not_decide():
    calm = tuple(10.0 + 0.1 * number for number in range(9))
    disturbed = (40.0, *calm[1:])
    slower = tuple(value + 5 for value in calm)
    extra = extra_cost(
        Cost(1, 1.0, latency_ms=10.4, rounds_ms=disturbed),
        Cost(1, 1.0, latency_ms=15.4, rounds_ms=slower),
        "latency_ms",
    )
    assert (extra.value, extra.low, extra.high) == pytest.approx((5.0, 5.0, 5.0))
    # Of 7 rounds none may be left out: with 95 % the median of all rounds is between the 1st and the 7th; of 9, between
    # the 2nd and the 8th; of 20, between the 6th and the 15th (the tables of the sign test).
    assert [_count_outside(rounds) for rounds in (7, 9, 12, 20)] == [0, 1, 2, 5]


def test_extra_time_is_compared_within_rounds():
    first = Cost(1_000_000, 4.0, 2.0, 3.0, 12.0, (10.0, 12.0, 14.0))
    second = Cost(2_500_000, 9.0, 5.0, 3.0, 20.0, (15.0, 20.0, 21.0))
    assert extra_cost(first, second, "latency_ms") == Interval(8.0, 5.0, 8.0)
    assert extra_cost(first, second, "gmacs") == Interval(3.0, 3.0, 3.0)
    assert extra_cost(first, second, "parameters_m") == Interval(1.5, 1.5, 1.5)
    assert find_axis([first, second]) == "latency_ms"
    assert find_axis([first, Cost(2, 1.0, 5.0)]) == "gmacs"
    assert find_axis([first, Cost(2, 1.0)]) == "parameters_m"
