"""What happens between iterations, one job each.

The order at the end of an iteration: the checkpoint is written if it is due, a signal is acted on, and then evaluation
begins. So whatever an evaluation does, nothing is lost.
"""

from resnet_det.engine.hooks.best import BestWeights
from resnet_det.engine.hooks.checkpoints import CheckpointHook
from resnet_det.engine.hooks.evaluation import EvaluationHook, flatten
from resnet_det.engine.hooks.precise_norms import PreciseNormsHook
from resnet_det.engine.hooks.profile import ProfileHook
from resnet_det.engine.hooks.progress import ProgressHook
from resnet_det.engine.hooks.signals import Interrupted, SignalHook
from resnet_det.engine.hooks.skipped_images import SkippedImagesHook
from resnet_det.engine.hooks.throughput import ThroughputHook
from resnet_det.engine.hooks.validation_loss import mean_losses, validation_losses

__all__ = [
    "BestWeights",
    "CheckpointHook",
    "EvaluationHook",
    "Interrupted",
    "PreciseNormsHook",
    "ProfileHook",
    "ProgressHook",
    "SignalHook",
    "SkippedImagesHook",
    "ThroughputHook",
    "flatten",
    "mean_losses",
    "validation_losses",
]
