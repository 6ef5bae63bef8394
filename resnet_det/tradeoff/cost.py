"""What detectors cost beside each other: time, multiply-adds, parameters, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from resnet_det.analysis import analyze_model
from resnet_det.benchmark import compare
from resnet_det.benchmark.memory import measure_peak_memory
from resnet_det.evaluation.bootstrap import CONFIDENCE, Interval

MIB = 2**20
Inputs = Sequence[list[dict[str, Any]]]  # batches of one image


@dataclass(frozen=True)
class Cost:
    """The cost of one detector; None is what was not measured.

    Attributes:
        parameters: their number, frozen ones included.
        weights_mib: memory of parameters and norm statistics as they are kept.
        gmacs: multiply-adds for the first image, in 1e9.
        memory_mib: the most that tensors take at once for the first image, beyond weights and input.
        latency_ms: median over the rounds of the mean time for an image.
        rounds_ms: mean time for an image in each round; the rounds of all detectors were interleaved.
    """

    parameters: int
    weights_mib: float
    gmacs: float | None = None
    memory_mib: float | None = None
    latency_ms: float | None = None
    rounds_ms: tuple[float, ...] = ()

    @property
    def parameters_m(self) -> float:
        """In millions."""
        return self.parameters / 1e6


# Attributes by which detectors can be ordered, with their units: the first that is known of all counts.
AXES = {"latency_ms": "ms", "gmacs": "GMACs", "parameters_m": "million parameters"}


def find_axis(costs: Sequence[Cost]) -> str:
    """The attribute of :class:`Cost` by which detectors are ordered."""
    return next(axis for axis in AXES if all(getattr(cost, axis) is not None for cost in costs))


def extra_cost(first: Cost, second: Cost, axis: str) -> Interval:
    """What the second costs more than the first; for time, with an interval from the differences within rounds.

    It is the distribution-free one of a median, between two of the sorted differences (David and Nagaraja, Order
    Statistics, section 7.1): a single round in which something else ran does not decide.
    """
    extra = getattr(second, axis) - getattr(first, axis)
    if axis != "latency_ms":
        return Interval(extra, extra, extra)
    apart = sorted(b - a for a, b in zip(first.rounds_ms, second.rounds_ms, strict=True))
    outside = _count_outside(len(apart))
    return Interval(extra, apart[outside], apart[-1 - outside])


def _count_outside(rounds: int) -> int:
    """How many values to leave out at each end so that the others hold the median with ``CONFIDENCE``."""
    chance, count = 2 / 2**rounds, 0  # that all values are on one side of the median
    while chance + 2 * math.comb(rounds, count + 1) / 2**rounds <= 1 - CONFIDENCE:
        count += 1
        chance += 2 * math.comb(rounds, count) / 2**rounds
    return count


def count_weights(model: nn.Module) -> Cost:
    """What is known without running the model."""
    kept = [*model.parameters(), *model.buffers()]
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights_mib=sum(tensor.numel() * tensor.element_size() for tensor in kept) / MIB,
    )


def measure_costs(
    detectors: Mapping[str, tuple[nn.Module, Inputs]], *, device: str, dtype: torch.dtype, pairs: int
) -> tuple[dict[str, Cost], list[str]]:
    """Measure detectors, given by their names with what they are run on.

    Args:
        device: "cpu" or "cuda", where the models are.
        dtype: to compute in; other types than float32 by autocast.
        pairs: rounds in which each detector runs on all its inputs, one after the other; 0: time is not measured.

    Returns:
        The costs, and what could not be measured and why.
    """
    costs, notes, runs = {}, [], {}
    for name, (model, inputs) in detectors.items():
        costs[name] = count_weights(model)
        run_one = _make_run(model, inputs[:1], device, dtype)
        try:
            run_one()  # what libraries load when they are first used counts for none
            memory = measure_peak_memory(run_one, device) / MIB
            gmacs = analyze_model(model, inputs[0][0]["image"], repeats=0)[-1].gmacs
        except RuntimeError as error:  # out of memory among them
            notes.append(f"{name} could not be run: {str(error).strip().splitlines()[0]}")
            continue
        costs[name] = replace(costs[name], gmacs=gmacs, memory_mib=memory)
        runs[name] = _make_run(model, inputs, device, dtype)
    if pairs and runs:
        count = len(next(iter(detectors.values()))[1])
        measured = compare("latency", runs, pairs=pairs, items=count, device=device, compare_outputs=False)
        for result in measured.results:
            rounds = tuple(1e3 * seconds / count for seconds in result.seconds)
            costs[result.name] = replace(
                costs[result.name], latency_ms=1e3 * result.median_seconds / count, rounds_ms=rounds
            )
        notes.append(f"Load of the machine: {measured.load[0]:.1f} before measuring, {measured.load[1]:.1f} after.")
    return costs, notes


def _make_run(model: nn.Module, inputs: Inputs, device: str, dtype: torch.dtype) -> Callable[[], None]:
    """A function that runs ``model`` on each of ``inputs`` in turn."""

    @torch.no_grad()
    def run() -> None:
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            for batch in inputs:
                model(batch)

    return run
