"""Numbers of steps on their way from the device to the event storage."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

PERIOD = 20  # iterations; writers write as often


class MetricLog:
    """Keeps the numbers of steps on the device until they are wanted: reading one makes the CPU wait.

    On a GPU they are read every ``PERIOD`` iterations; elsewhere after each step, as there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._unread: list[tuple[int, dict[str, torch.Tensor], float]] = []

    def add(self, iteration: int, numbers: dict[str, torch.Tensor], data_time: float) -> None:
        """
        Args:
            numbers: losses, and "grad_norm".
            data_time: seconds that the step has waited for data.
        """
        self._unread.append((iteration, numbers, data_time))

    def flush_if_due(self, iteration: int) -> None:
        if self.device.type != "cuda" or (iteration + 1) % PERIOD == 0:
            self.flush()

    def flush(self) -> None:
        """Write what there is to the event storage: means over the processes, of data_time the longest."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        names = [list(numbers) for _, numbers, _ in unread]
        values = torch.stack([value.float() for _, numbers, _ in unread for value in numbers.values()])
        times = torch.tensor([seconds for _, _, seconds in unread], device=self.device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(values)
            values /= comm.get_world_size()
            torch.distributed.all_reduce(times, torch.distributed.ReduceOp.MAX)
        if not comm.is_main_process():
            return
        numbers, seconds = iter(values.tolist()), times.tolist()
        storage = get_event_storage()
        now = storage.iter
        for (iteration, _, _), keys, data_time in zip(unread, names, seconds, strict=True):
            of_step = {key: next(numbers) for key in keys}
            storage.iter = iteration
            norm = of_step.pop("grad_norm")
            storage.put_scalars(data_time=data_time, grad_norm=norm, total_loss=sum(of_step.values()))
            if len(of_step) > 1:
                storage.put_scalars(**of_step)
        storage.iter = now
