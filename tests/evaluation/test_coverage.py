"""Confidence intervals hold what they say: simulated data sets whose true AP is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from resnet_det.evaluation.bootstrap import (
    MIN_IMAGES,
    WeightedAP,
    bootstrap,
    combine_classes,
    mean_over,
    student_t,
    summarize_draws,
)
from resnet_det.evaluation.matching import IOU_THRESHOLDS, Matches, rank_within

NUM_SETS, NUM_DRAWS = 120, 120
NUM_POPULATION = 100_000  # images from which the true AP is taken
BETTER = 0.3  # by how much the second detector sees objects better, in the units of ``simulate``

# Images, and how many objects of each class an image has on average.
SETTINGS = [
    (20, [2, 1.5]),
    (50, [2, 1]),
    (200, [1, 0.5]),
    (20, [1.2] * 4),
    (50, [2] + [0.6] * 8),
    (200, [1] + [0.1] * 6),
]


def simulate(rng, num_images, rates, advantages=(0.0,)):
    """Images that are easy or hard, with ``rates`` objects of each class on average, and what detectors find in them.

    Args:
        advantages: of each detector, by how much it sees all objects better. What an image and an object are like is
            the same for all of them, and each makes mistakes of its own besides.

    Returns:
        The AP of each detector, for any weights of the images.
    """
    rates = np.asarray(rates, dtype=float)
    cells = np.indices((num_images, len(rates))).reshape(2, -1)  # image and class of each
    counts, ease = rng.poisson(np.tile(rates, num_images)), rng.normal(0, 0.8, num_images)
    image, category = np.repeat(cells, counts, axis=1)
    truth = SimpleNamespace(images=range(num_images), categories=range(len(rates)), image=image, category=category)
    plain = ease[image] + rng.normal(0.8, 0.8, len(image))
    runs = []
    for advantage in advantages:
        quality = 1 / (1 + np.exp(-(plain + advantage + rng.normal(0, 0.6, len(image)))))
        seen = np.flatnonzero(quality > 0.35)
        false = np.repeat(cells, rng.poisson(0.7 * np.tile(rates, num_images)), axis=1)
        run = SimpleNamespace(
            image=np.append(image[seen], false[0]),
            category=np.append(category[seen], false[1]),
            score=np.append(
                np.clip(0.6 * quality[seen] + rng.normal(0.2, 0.15, len(seen)), 0.001, 0.999),
                rng.beta(2, 4, false.shape[1]),
            ),
        )
        matched = np.full((10, len(run.score)), -1)
        for row, threshold in enumerate(IOU_THRESHOLDS):
            matched[row, : len(seen)] = np.where(quality[seen] >= threshold, seen, -1)
        rank = rank_within(run.image * len(rates) + run.category, run.score)
        nothing, counted = np.zeros(len(image), dtype=bool), np.ones(len(run.score), dtype=bool)
        matches = Matches(matched, np.zeros_like(matched, dtype=bool), counted, rank, nothing)
        runs.append(WeightedAP(truth, run, matches))
    return runs


def measure_coverage(num_images, rates, num_sets=NUM_SETS, num_draws=NUM_DRAWS):
    """How often intervals hold the true value, and how often a difference is called clear.

    Returns:
        Shares: of sets with an interval; of those, of intervals of AP, and of paired intervals of a difference, that
        hold the true value; of two equally good detectors that are called clearly different; and of a better one that
        is called clearly better.
    """
    rng = np.random.default_rng(0)
    advantages = (0.0, 0.0, BETTER)
    true = np.array([np.nanmean(run.compute()) for run in simulate(rng, NUM_POPULATION, rates, advantages)])
    true[1] = true[0] = true[:2].mean()  # these two are equally good
    hits, paired_hits, false_alarms, right_calls, counted = 0, 0, 0, 0, 0
    for seed in range(num_sets):
        runs = simulate(rng, num_images, rates, advantages)
        ap = [float(np.nanmean(run.compute())) for run in runs]
        draws = mean_over(bootstrap(runs, num_draws, seed), (2,))
        draws = combine_classes(draws, runs[0].images_per_class)
        interval = summarize_draws(ap[0], draws[0])
        if not np.isfinite(interval.low):
            continue
        equal = summarize_draws(ap[1] - ap[0], draws[1] - draws[0])
        better = summarize_draws(ap[2] - ap[0], draws[2] - draws[0])
        counted += 1
        hits += interval.low <= true[0] <= interval.high
        paired_hits += better.low <= true[2] - true[0] <= better.high
        false_alarms += not equal.low <= 0 <= equal.high
        right_calls += better.low > 0
    if not counted:
        return (0.0, *[float("nan")] * 4)
    return counted / num_sets, *(count / counted for count in (hits, paired_hits, false_alarms, right_calls))


def is_as_said(held, share):
    """Whether the share of sets in which an interval has held is 92 to 98 %, but for the chance in the simulation."""
    margin = 1.96 * np.sqrt(0.05 * 0.95 / (share * NUM_SETS))
    return 0.92 - margin <= held <= min(0.98 + margin, 1)


@pytest.mark.long
@pytest.mark.parametrize(("num_images", "rates"), SETTINGS)
def test_intervals_hold_the_ap_of_the_population(num_images, rates):
    share, covered, *_ = measure_coverage(num_images, rates)
    assert share > 1 / 4
    assert is_as_said(covered, share)


@pytest.mark.long
@pytest.mark.parametrize(("num_images", "rates"), SETTINGS[:2])
def test_paired_intervals_hold_the_difference_of_two_detectors(num_images, rates):
    share, _, paired, false_alarms, right_calls = measure_coverage(num_images, rates)
    assert is_as_said(paired, share)
    assert is_as_said(1 - false_alarms, share)
    assert right_calls > 3 * false_alarms


def test_classes_in_few_images_have_no_interval():
    draws = np.random.default_rng(0).normal(50, 5, (100, 2))
    assert np.isfinite(combine_classes(draws, np.array([MIN_IMAGES, 50]))).all()
    assert np.isnan(combine_classes(draws, np.array([MIN_IMAGES - 1, 50]))).all()
    assert np.isfinite(combine_classes(draws, np.array([0, 50]))).all(), "a class that is not there does not matter"


def test_an_interval_reaches_as_far_as_draws_are_biased():
    draws = np.linspace(40, 60, 1001)
    assert summarize_draws(50, draws).low == pytest.approx(40.5)
    assert summarize_draws(47, draws).low == pytest.approx(47 - 9.5 - 3)
    assert summarize_draws(47, draws).high == pytest.approx(47 + 9.5)
    assert summarize_draws(53, draws).high == pytest.approx(53 + 9.5 + 3)


def test_deviations_are_widened_by_students_t():
    for freedom, quantile in {4: 2.7764, 9: 2.2622, 19: 2.0930, 49: 2.0096, 199: 1.9720}.items():
        assert student_t(np.array(freedom)) == pytest.approx(quantile, abs=0.01)
    draws = np.array([[40.0], [50], [60]])
    wide = combine_classes(draws, np.array([20]))
    assert wide.mean() == pytest.approx(50)
    assert wide[2] - wide[0] == pytest.approx(20 * np.sqrt(20 / 19) * 2.0930 / 1.96, rel=0.01)
