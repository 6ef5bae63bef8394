"""All experiments, in the order of the page."""

from __future__ import annotations

from resnet_det.explain.degradation import DEGRADATION
from resnet_det.explain.experiment import Experiment
from resnet_det.explain.features import FEATURES
from resnet_det.explain.gradients import GRADIENTS
from resnet_det.explain.identity import IDENTITY
from resnet_det.explain.lesion import LESION
from resnet_det.explain.overfit import OVERFIT
from resnet_det.explain.returns import RETURNS
from resnet_det.explain.thousand import THOUSAND

_ALL = (DEGRADATION, GRADIENTS, IDENTITY, THOUSAND, RETURNS, OVERFIT, LESION, FEATURES)
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
