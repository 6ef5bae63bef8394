"""How far all processes together are, as one of them sees it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence

import tqdm

from resnet_det.engine.predict.inputs import PathUnit, Unit

logger = logging.getLogger(__name__)

LOG_SECONDS, BAR_SECONDS = 30.0, 1.0


class Progress:
    """A bar on a terminal, else a line in the log each half minute: images of the whole, images/s, time to go."""

    def __init__(
        self, units: Sequence[Unit], list_finished: Callable[[], set[int]], *, shown: bool, shard_size: int
    ) -> None:
        """Args:
        list_finished: the places of the finished units, of all processes.
        shown: whether this process is the one that tells.
        shard_size: how many images a tar shard is taken to have, as long as none has been read here.
        """
        self._units, self._list_finished, self._shown = units, list_finished, shown
        self._guess, self._in_shards, self._num_shards = shard_size, 0, 0
        self._finished = list_finished()
        self._in_unit = 0
        self._before = self.estimate()[0]
        self._started = self._told = time.perf_counter()
        uses_bar = shown and sys.stderr.isatty()
        self._bar = tqdm.tqdm(unit="image", desc="predict", smoothing=0, initial=self._before) if uses_bar else None
        self._seconds = BAR_SECONDS if uses_bar else LOG_SECONDS

    def advance(self) -> None:
        """One more image of the unit in work."""
        self._in_unit += 1
        now = time.perf_counter()
        if not self._shown or now - self._told < self._seconds:
            return
        self._told, self._finished = now, self._list_finished()
        done, total = self.estimate()
        if self._bar is not None:
            self._move_bar(done, total)
            return
        rate = max(0, done - self._before) / (now - self._started)
        to_go = tqdm.tqdm.format_interval((total - done) / rate) if rate else "unknown time"
        is_known = all(isinstance(unit, PathUnit) for unit in self._units)
        text = f"{done:,} of {'' if is_known else 'about '}{total:,} images, {rate:.1f} images/s, {to_go} to go"
        logger.info(text)

    def end_unit(self, place: int, num_images: int) -> None:
        """This process has finished a unit."""
        if not isinstance(self._units[place], PathUnit):
            self._in_shards, self._num_shards = self._in_shards + num_images, self._num_shards + 1
        self._finished = self._finished | {place}
        self._in_unit = 0

    def estimate(self) -> tuple[int, int]:
        """Images that are done, and all there are. Tar shards have as many as those read here have on average; pages of
        stacks are counted once they are read."""
        done = sum(self._expect(self._units[place]) for place in self._finished) + self._in_unit
        return done, max(done, sum(map(self._expect, self._units)))

    def close(self) -> None:
        if self._bar is not None:
            self._move_bar(*self.estimate())
            self._bar.close()

    def _move_bar(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(max(0, done - self._bar.n))

    def _expect(self, unit: Unit) -> int:
        if isinstance(unit, PathUnit):
            return unit.num_images
        return round(self._in_shards / self._num_shards) if self._num_shards else self._guess
