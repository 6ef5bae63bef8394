"""How far AP would be off with other images of the same kind: bootstrap confidence intervals.

Images are drawn with replacement, as many as there are, and AP is computed anew (Efron, Bootstrap Methods: Another Look
at the Jackknife, 1979; the intervals are percentiles). Matching does not depend on the other images, so a draw is a
weight for each image.

With few images, draws of them vary too little: by sqrt((m - 1) / m), and as if the spread were known exactly, where it
is estimated. The deviations of each class are widened for both, by the number m of the images that have it: Student's t
in place of the normal distribution (Hesterberg, What Teachers Should Know about the Bootstrap, 2015, section 4.1). And
as AP of few objects is too high, in draws as in the sample, the interval reaches farther down by as much as draws are
higher than the sample. Where a class is in fewer than MIN_IMAGES images that is not enough, and there is no interval.
A test simulates all this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import Matches, evaluation_order

NUM_DRAWS, SEED, CONFIDENCE = 500, 0, 0.95
MIN_IMAGES = 10  # that a class must be in for an interval
MAX_NAMED = 5  # classes named in a sentence
_Z = 1.959964  # the normal distribution's quantile for CONFIDENCE
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval, in percent; its ends are NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite((self.value, self.low, self.high)).all())

    def clipped(self) -> Interval:
        """The same within what AP can be: 0 to 100."""
        return Interval(self.value, max(self.low, 0.0), min(self.high, 100.0))


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections that have found an object at one IoU threshold, class by class, in the order of evaluation."""

    image: np.ndarray  # (k,)
    category: np.ndarray  # (k,)
    class_start: np.ndarray  # (classes + 1,)
    place: np.ndarray  # (k,): among all detections
    ignored_image: np.ndarray  # (i,): of the detections that count neither as right nor as wrong
    ignored_before: np.ndarray  # (k,): how many of these stand before
    ignored_before_class: np.ndarray  # (classes,)


class WeightedAP:
    """AP of one run for any weights of the images."""

    def __init__(self, truth: GroundTruth, detections: Detections, matches: Matches) -> None:
        num_images, num_classes = len(truth.images), len(truth.categories)
        order = evaluation_order(detections, matches)
        category = detections.category[order]
        self.num_images = num_images
        self.image = detections.image[order]
        self.class_start = np.searchsorted(category, np.arange(num_classes))
        real = ~matches.ignored_annotation
        cells = truth.category[real] * num_images + truth.image[real]
        self.objects = np.bincount(cells, minlength=num_classes * num_images).reshape(num_classes, num_images)
        self.found = []
        for annotation, is_ignored in zip(matches.annotation[:, order], matches.ignored[:, order], strict=True):
            ignored, place = np.flatnonzero(is_ignored), np.flatnonzero((annotation >= 0) & ~is_ignored)
            self.found.append(
                _Found(
                    image=self.image[place],
                    category=category[place],
                    class_start=np.searchsorted(category[place], np.arange(num_classes + 1)),
                    place=place,
                    ignored_image=self.image[ignored],
                    ignored_before=np.searchsorted(ignored, place),
                    ignored_before_class=np.searchsorted(ignored, self.class_start),
                )
            )

    @property
    def images_per_class(self) -> np.ndarray:
        """(classes,): how many images have objects of each class."""
        return (self.objects > 0).sum(axis=1)

    def compute(self, weight: np.ndarray | None = None) -> np.ndarray:
        """(10, classes): AP, 0 to 100, at each IoU threshold; NaN for classes without objects.

        Args:
            weight: (images,) whole numbers, how often each image counts; once if not given.
        """
        weight = np.ones(self.num_images, dtype=np.int64) if weight is None else weight
        num_objects = self.objects @ weight
        shown = _cumulate(weight[self.image])
        needed = _needed_counts(num_objects)
        ap = [self._compute_at(found, weight, shown, needed) for found in self.found]
        return np.where(num_objects > 0, np.stack(ap), np.nan)

    def _compute_at(self, found: _Found, weight: np.ndarray, shown: np.ndarray, needed: np.ndarray) -> np.ndarray:
        start, end = found.class_start[:-1], found.class_start[1:]
        right, ignored = _cumulate(weight[found.image]), _cumulate(weight[found.ignored_image])
        before = shown[self.class_start] - ignored[found.ignored_before_class]
        counted = shown[found.place + 1] - ignored[found.ignored_before] - before[found.category]
        precision = (right[1:] - right[start][found.category]) / np.maximum(counted, 1)
        # The best precision at this recall or a higher one: from the right, lifted so that each class begins anew.
        lift = 2.0 * (len(start) - found.category)
        best = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
        at = np.searchsorted(right[1:], right[start][:, None] + needed, side="left")
        at = np.maximum(at, start[:, None])
        values = np.where(at < end[:, None], np.append(best, 0.0)[np.minimum(at, len(best))], 0.0)
        return 100 * values.mean(axis=1)


def draw_weights(num_images: int, num_draws: int = NUM_DRAWS, seed: int = SEED) -> Iterator[np.ndarray]:
    """How often each image is drawn, for each of ``num_draws`` draws; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for _ in range(num_draws):
        yield np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)


def bootstrap(runs: Sequence[WeightedAP], num_draws: int = NUM_DRAWS, seed: int = SEED) -> np.ndarray:
    """(runs, draws, 10, classes): AP of runs on the same images, in draws that are the same for all of them."""
    weights = draw_weights(runs[0].num_images, num_draws, seed)
    return np.stack([[run.compute(weight) for run in runs] for weight in weights], axis=1)


def combine_classes(draws: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The mean over the classes of their bootstrapped AP, whose deviations are widened for the number of images.

    Args:
        draws: (..., draws, classes); NaN where a draw has no object of a class.
        images: (classes,) that have objects of each class; classes that none has are left out.

    Returns:
        (..., draws); NaN if a class is in fewer than ``MIN_IMAGES`` images: then nothing can be told of other images.
    """
    known = images > 0
    draws, images = draws[..., known], images[known]
    if not len(images) or images.min() < MIN_IMAGES:
        return np.full(draws.shape[:-1], np.nan)
    centre = mean_over(draws, (draws.ndim - 2,))[..., None, :]
    freedom = images - 1
    factor = np.sqrt(images / freedom) * student_t(freedom) / _Z
    return mean_over(centre + (draws - centre) * factor, (draws.ndim - 1,))


def explain_no_interval(class_names: Sequence[str], images: Sequence[int]) -> str:
    """Why there is no interval over these classes, which are in so many images each; empty if there is one."""
    rare = [name for name, count in zip(class_names, images, strict=True) if 0 < count < MIN_IMAGES]
    if not rare:
        return ""
    more = f" and {len(rare) - MAX_NAMED} more" if len(rare) > MAX_NAMED else ""
    verb = "is" if len(rare) == 1 else "are"
    return (
        f"no confidence interval: {', '.join(rare[:MAX_NAMED])}{more} {verb} in fewer than {MIN_IMAGES} images, which "
        "tell next to nothing of other images"
    )


def student_t(freedom: np.ndarray) -> np.ndarray:
    """Student's t quantile for ``CONFIDENCE`` by the degrees of freedom."""
    return stdtrit(freedom, (1 + CONFIDENCE) / 2)


def summarize_draws(value: float, draws: np.ndarray) -> Interval:
    """The interval round ``value`` that holds ``CONFIDENCE`` of the draws (those that are not NaN).

    The draws are moved to ``value`` by their mean: in draws the AP of rare classes is too high, by more than the width
    of the interval with many of them. By as much ``value`` itself may be off, and the interval reaches that far.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Interval(value, float("nan"), float("nan"))
    bias = float(draws.mean()) - value
    low, high = value + np.quantile(draws - draws.mean(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low - max(bias, 0)), float(high - min(bias, 0)))


def mean_over(ap: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over ``axes`` of what is not NaN; NaN where there is nothing."""
    known = np.isfinite(ap)
    with np.errstate(invalid="ignore"):
        return np.where(known, ap, 0.0).sum(axis=axes) / known.sum(axis=axes)


def _cumulate(values: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(values))


def _needed_counts(num_objects: np.ndarray) -> np.ndarray:
    """(classes, 101): the fewest objects found that make each recall, as floats are compared in COCO's code."""
    total = np.maximum(num_objects, 1)[:, None]
    count = np.floor(_RECALLS * total).astype(np.int64)
    count += count / total < _RECALLS
    return count - ((count - 1) / total >= _RECALLS)
