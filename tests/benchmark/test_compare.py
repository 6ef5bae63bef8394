"""The core of the benchmarks: turns, ratios, differences, memory, and what is said of them."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from resnet_det.benchmark import compare, describe_machine, format_comparison, write_comparisons
from resnet_det.benchmark.difference import largest_difference
from resnet_det.benchmark.machine import measure_matmul_flops
from resnet_det.benchmark.memory import measure_peak_memory
from resnet_det.errors import InputError


def nap(clock, seconds, output):
    def run():
        clock.now += seconds
        return output

    return run


def test_contenders_take_turns_and_are_compared_within_a_round():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    comparison = compare("letters", contenders, pairs=4, warm_up=1)
    assert "".join(calls) == "abccbaabccbaabc"
    assert [len(result.seconds) for result in comparison.results] == [4, 4, 4]


def test_what_is_faster_is_said_to_be_and_by_how_much(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    outputs = torch.tensor([2.0, -4.0]), torch.tensor([2.0, -4.4])
    contenders = {"slow": nap(clock, 0.03, outputs[0]), "fast": nap(clock, 0.01, outputs[1])}
    comparison = compare(
        "two naps", contenders, pairs=3, warm_up=0, items=5, flops=1e6, peak_flops={"slow": 1e9, "fast": 1e9}
    )
    slow, fast = comparison.results
    assert slow.speed_ups == (1.0, 1.0, 1.0)
    assert fast.speed_up == pytest.approx(3)
    assert slow.difference is None
    assert fast.difference == pytest.approx(0.1, rel=1e-5)
    assert slow.matmul_share == pytest.approx(1 / 30)
    text = format_comparison(comparison)
    assert text.startswith("two naps")
    assert "as slow in the same round" in text
    assert "memory" not in text
    write_comparisons([comparison], tmp_path / "new" / "out.json", machine=describe_machine(), command=["benchmark"])
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert written["machine"]["torch"] == torch.__version__
    results = written["comparisons"][0]["results"]
    assert results[1]["speed_up"] == fast.speed_up
    assert results[1]["seconds"] == list(fast.seconds)


def test_a_report_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_comparisons([], tmp_path / "file" / "out.json", machine={}, command=[])


def test_differences_of_all_kinds_of_outputs():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    instances = Instances((30, 40), pred_boxes=Boxes(boxes), scores=torch.tensor([0.5]))
    shifted = Instances((30, 40), pred_boxes=Boxes(boxes + 0.2), scores=torch.tensor([0.5]))
    assert largest_difference([instances], [instances]) == 0
    assert largest_difference([{"instances": shifted}], [{"instances": instances}]) == pytest.approx(0.01, rel=1e-4)
    assert largest_difference({"AP": 40.4, "name": "x"}, {"AP": 40.0, "name": "y"}) == pytest.approx(0.01)
    assert largest_difference(np.array([1, 2], dtype=np.uint8), np.array([1, 4], dtype=np.uint8)) == 0.5
    assert math.isinf(largest_difference(torch.zeros(2), torch.zeros(3)))
    assert math.isinf(largest_difference(torch.tensor([1.0, math.nan]), torch.ones(2)))
    assert largest_difference(torch.zeros(0, 4), torch.zeros(0, 4)) == 0


def test_peak_memory_is_that_of_tensors_alive_at_once():
    def run():
        a = torch.zeros(250_000)
        b = a + 1
        del a
        return b * 2

    assert measure_peak_memory(run) == pytest.approx(2 * 4 * 250_000, rel=0.01)


def test_the_rate_of_matrix_products_is_of_a_machine_of_this_century():
    assert 1e8 < measure_matmul_flops(torch.float32, size=256, repeats=2) < 1e15
