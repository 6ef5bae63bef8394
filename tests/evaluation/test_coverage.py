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
from resnet_det.evaluation.matching import Matches, rank_within

NUM_SETS, NUM_DRAWS = 120, 120


def simulate(rng, num_images, rates):
    """Images that are easy or hard, with ``rates`` objects of each class on average, and what a detector finds."""
    objects, detections, found = [], [], []
    for image in range(num_images):
        ease = rng.normal(0, 0.8)
        for category, rate in enumerate(rates):
            for _ in range(rng.poisson(rate)):
                quality = 1 / (1 + np.exp(-(ease + rng.normal(0.8, 1))))
                if quality > 0.35:
                    score = np.clip(0.6 * quality + rng.normal(0.2, 0.15), 0.001, 0.999)
                    detections.append((image, category, score))
                    found.append(np.where(quality >= np.linspace(0.5, 0.95, 10), len(objects), -1))
                objects.append((image, category))
            for _ in range(rng.poisson(0.7 * rate)):
                detections.append((image, category, rng.beta(2, 4)))
                found.append(np.full(10, -1))
    image, category = np.array(objects, dtype=int).reshape(-1, 2).T
    truth = SimpleNamespace(images=range(num_images), categories=range(len(rates)), image=image, category=category)
    place, kind, score = np.array(detections).reshape(-1, 3).T
    run = SimpleNamespace(image=place.astype(int), category=kind.astype(int), score=score)
    matched = np.array(found, dtype=int).reshape(-1, 10).T
    rank = rank_within(run.image * len(rates) + run.category, score)
    nothing = np.zeros(len(objects), dtype=bool)
    matches = Matches(matched, np.zeros_like(matched, dtype=bool), np.ones(len(score), dtype=bool), rank, nothing)
    return WeightedAP(truth, run, matches)


@pytest.mark.long
@pytest.mark.parametrize(
    ("num_images", "rates"),
    [(20, [2, 1.5]), (50, [2, 1]), (200, [1, 0.5]), (20, [1.2] * 4), (50, [2] + [0.6] * 8), (200, [1] + [0.1] * 6)],
)
def test_intervals_hold_the_ap_of_the_population(num_images, rates):
    rng = np.random.default_rng(0)
    truth = np.nanmean(simulate(rng, 6000, rates).compute())
    hits, counted = 0, 0
    for seed in range(NUM_SETS):
        run = simulate(rng, num_images, rates)
        draws = combine_classes(mean_over(bootstrap([run], NUM_DRAWS, seed)[0], (1,)), run.images_per_class)
        interval = summarize_draws(float(np.nanmean(run.compute())), draws)
        if np.isfinite(interval.low):
            counted += 1
            hits += interval.low <= truth <= interval.high
    assert counted > NUM_SETS / 4
    margin = 1.96 * np.sqrt(0.05 * 0.95 / counted)  # of the simulation itself
    assert 0.92 - margin <= hits / counted <= min(0.98 + margin, 1)


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
