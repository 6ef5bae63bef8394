"""The core of all benchmarks: the same work done in several ways, in turn, in one process.

Machines get slower and faster while they measure: other programs run, the clock follows the temperature. So the ways
take turns, each round in the reverse order of the last, and what is compared are the times of one round.

A subcommand of tools/benchmark.py is a module of this room with two functions:

    def add_arguments(parser: argparse.ArgumentParser) -> None: ...   # flags beside the common ones
    def run(args: argparse.Namespace) -> Iterable[Comparison]: ...    # raises InputError for what a user got wrong

that is named in ``SUBCOMMANDS`` (``benchmark/__init__.py``); its docstring is the help. The common flags are in
``benchmark/arguments.py``. ``run`` makes the contenders, functions without arguments that return what they computed,
and hands them to :func:`compare`:

    compare(
        "1,000 images drawn",                                # what was measured, in plain words
        {"Detectron2": draw_theirs, "resnet_det": draw_ours},  # the first is what the others are compared with
        pairs=args.pairs,
        items=1000,                                          # images in one call
    )
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from resnet_det.benchmark.difference import largest_difference
from resnet_det.benchmark.memory import measure_peak_memory

MIN_PAIRS = 7


@dataclass(frozen=True)
class Result:
    """What was measured of one contender.

    Attributes:
        seconds: of each round.
        speed_ups: the baseline's time over this one's, of each round.
        difference: largest difference of its output from the baseline's, as a share of the largest value there;
            None: not compared, inf: the outputs have not the same parts.
        peak_memory_bytes: tensors that it allocated at once, beyond those that were there before; None: not measured.
        matmul_share: its floating point operations in a second, as a share of the matrix multiplications that this
            machine does in the same precision; None: not counted.
    """

    name: str
    seconds: tuple[float, ...]
    speed_ups: tuple[float, ...]
    difference: float | None = None
    peak_memory_bytes: int | None = None
    matmul_share: float | None = None

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    @property
    def speed_up(self) -> float:
        """Median of how many times faster than the baseline it was in the same round."""
        return statistics.median(self.speed_ups)


@dataclass(frozen=True)
class Comparison:
    """What was measured, and the results in the order of the contenders.

    Attributes:
        items: done in one call.
        item: what one of them is called, in the singular.
        load: of the machine at the start and the end: processes that want to run (os.getloadavg).
    """

    title: str
    results: tuple[Result, ...]
    items: int = 1
    item: str = "image"
    load: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = field(default=())

    def result(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)


def compare(
    title: str,
    contenders: Mapping[str, Callable[[], Any]],
    *,
    pairs: int = MIN_PAIRS,
    warm_up: int = 2,
    items: int = 1,
    item: str = "image",
    device: str = "cpu",
    compare_outputs: bool = True,
    with_memory: bool = False,
    flops: float | None = None,
    peak_flops: Mapping[str, float] | None = None,
    notes: tuple[str, ...] = (),
) -> Comparison:
    """Run ``contenders`` in turn, and compare times and outputs with those of the first.

    Args:
        title: what is measured, in plain words.
        contenders: by name; each does the whole work in one call and returns its outputs (tensors, arrays, numbers,
            Instances, and lists and dicts of them).
        pairs: rounds that count: in each, every contender runs once.
        warm_up: rounds before, which do not count.
        items: how many of ``item`` one call does.
        device: "cpu" or "cuda": where to wait for results.
        compare_outputs: False where they are random.
        with_memory: measure the tensors each contender allocates, in one more call.
        flops: floating point operations of one call, the same for all.
        peak_flops: floating point operations a second that this machine can do in the precision of each contender.
        notes: what a reader should know, beside the title.
    """
    load_before = os.getloadavg()[0]
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    outputs = {}
    for number in range(warm_up + pairs):
        gc.collect()
        for name in names if number % 2 == 0 else reversed(names):
            elapsed, outputs[name] = _time(contenders[name], device)
            if not compare_outputs:
                del outputs[name]
            if number >= warm_up:
                seconds[name].append(elapsed)
    baseline = names[0]
    results = []
    for name in names:
        share = None
        if flops is not None and peak_flops is not None:
            share = flops / statistics.median(seconds[name]) / peak_flops[name]
        results.append(
            Result(
                name=name,
                seconds=tuple(seconds[name]),
                speed_ups=tuple(a / b for a, b in zip(seconds[baseline], seconds[name], strict=True)),
                difference=largest_difference(outputs[name], outputs[baseline])
                if compare_outputs and name != baseline
                else None,
                peak_memory_bytes=measure_peak_memory(contenders[name], device) if with_memory else None,
                matmul_share=share,
            )
        )
    return Comparison(
        title=title,
        results=tuple(results),
        items=items,
        item=item,
        load=(load_before, os.getloadavg()[0]),
        notes=notes,
    )


def _time(contender: Callable[[], Any], device: str) -> tuple[float, Any]:
    _synchronize(device)
    start = time.perf_counter()
    output = contender()
    _synchronize(device)
    return time.perf_counter() - start, output


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
