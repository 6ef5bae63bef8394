"""Data set dicts as bytes, which processes share."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class SerializedDicts(Dataset):
    """A read-only list of data set dicts in one block of memory; each access makes a new dict.

    Why: lists of Python objects are copied to every worker of a loader, page by page, as soon as it looks at them, for
    that changes their reference counts. A block stays where it is; and as it is a tensor, torch hands workers that are
    not forked (macOS, Windows) the same block, too. Detectron2's DatasetFromList does so from v0.6 on, but takes a
    list, so that all dicts must be there at once: for COCO, 3 GB.

    Attributes:
        heights, widths: of the images in pixels, (n,); 0 where the dict does not say.
    """

    def __init__(self, dicts: Iterable[dict[str, Any]]) -> None:
        """Args:
        dicts: an iterator will do: each is serialised at once, and dropped.
        """
        block, ends, sizes = bytearray(), [0], []
        for entry in dicts:
            block += pickle.dumps(entry, protocol=pickle.HIGHEST_PROTOCOL)
            ends.append(len(block))
            sizes.append((entry.get("height", 0), entry.get("width", 0)))
        self._block = torch.frombuffer(block, dtype=torch.uint8) if block else torch.empty(0, dtype=torch.uint8)
        self._ends = torch.tensor(ends, dtype=torch.int64)
        self.heights, self.widths = np.array(sizes, dtype=np.int32).reshape(-1, 2).T

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # the end of an iteration, too
            raise IndexError(f"{index} of {len(self)} data set dicts")
        start, end = self._ends[index : index + 2].tolist()
        return pickle.loads(memoryview(self._block[start:end].numpy()))

    @property
    def num_bytes(self) -> int:
        return self._block.numel()


def serialize(dicts: Iterable[dict[str, Any]]) -> SerializedDicts:
    """``dicts`` as they are if they are serialised already."""
    return dicts if isinstance(dicts, SerializedDicts) else SerializedDicts(dicts)
