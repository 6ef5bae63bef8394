"""Statistics of BatchNorm that are means over images, not running ones."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats
from torch.utils.data import DataLoader

from resnet_det.data.loading.loader import seed_all
from resnet_det.engine.hooks.periods import is_due
from resnet_det.engine.hooks.signals import Interrupted
from resnet_det.engine.kept_numbers import numbers_kept

logger = logging.getLogger(__name__)


class PreciseNormsHook(HookBase):
    """Detectron2's PreciseBN (TEST.PRECISE_BN), for the weights that are evaluated.

    It takes the first batches of the run's own order each time: a resumed run has the same statistics. It runs before
    the checkpoint, which has them then.
    """

    def __init__(self, period: int, build_loader: Callable[[], DataLoader], num_batches: int) -> None:
        self.period, self.build_loader, self.num_batches = period, build_loader, num_batches
        self._loader: DataLoader | None = None

    def after_step(self) -> None:
        if not is_due(self.trainer.iter, self.period, self.trainer.max_iter):
            return
        if self._loader is None:
            self._loader = self.build_loader()
        model = self.trainer.evaluated_model
        logger.info("Statistics of norms from %d batches", self.num_batches)
        seed_all(self.trainer.seed, self.trainer.iter)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        try:
            with self.trainer.signals.may_interrupt(), EventStorage(), numbers_kept(model):
                update_bn_stats(model, itertools.islice(self._loader, self.num_batches), self.num_batches)
        except Interrupted:  # the evaluation that would come next ends the run, with a checkpoint
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
