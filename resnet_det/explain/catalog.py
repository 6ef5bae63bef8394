"""All experiments, in the order of the page."""

from __future__ import annotations

from resnet_det.explain.degradation import DEGRADATION
from resnet_det.explain.experiment import Experiment
from resnet_det.explain.gradients import GRADIENTS

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in (DEGRADATION, GRADIENTS)}
