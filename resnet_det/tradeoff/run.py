"""From folders of runs, or from configs, to tradeoff.html and tradeoff.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resnet_det.benchmark import describe_machine
from resnet_det.benchmark.arguments import PRECISIONS
from resnet_det.errors import InputError
from resnet_det.evaluation.bootstrap import NUM_DRAWS
from resnet_det.evaluation.files import describe_software, hash_file, read_detections, read_truth
from resnet_det.evaluation.limits import resolve_limit
from resnet_det.evaluation.report import without_nan
from resnet_det.evaluation.results_check import find_iou_types
from resnet_det.outputs import OutputFolder
from resnet_det.tradeoff.accuracy import Accuracy, measure_accuracy
from resnet_det.tradeoff.candidates import (
    Candidate,
    TestSet,
    find_differences,
    load_candidate,
    load_test_inputs,
    make_random_inputs,
    read_configs,
    read_runs,
)
from resnet_det.tradeoff.cost import count_weights, measure_costs
from resnet_det.tradeoff.learning import read_curves
from resnet_det.tradeoff.page import render_tradeoff
from resnet_det.tradeoff.tradeoff import Tradeoff, summarize
from resnet_det.tradeoff.verdict import Verdict, find_verdict

OUTPUT_NAMES = ("tradeoff.json", "tradeoff.html")

logger = logging.getLogger(__name__)

MIN_SIZE = 32  # pixels: the stride of res5


@dataclass(frozen=True)
class Measuring:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" or "fp16".
        pairs: rounds; 0: time is not measured.
    """

    device: str = "cpu"
    precision: str = "fp32"
    pairs: int = 9


def compare_runs(
    folders: Sequence[Path],
    output: Path,
    measuring: Measuring,
    *,
    num_images: int = 8,
    opts: Sequence[str] = (),
    num_draws: int = NUM_DRAWS,
) -> tuple[Tradeoff, Verdict]:
    """Compare runs that have ended, by their AP and by what they cost, and write that to ``output``.

    AP is written before cost is measured, so that it is not lost if measuring is broken off.

    Args:
        folders: OUTPUT_DIR of each.
        num_images: of the test set, to measure time on.
        opts: KEY VALUE pairs for all configs.

    Raises:
        InputError: something is missing or does not fit together; see
            :func:`~resnet_det.tradeoff.candidates.read_runs`.
    """
    if num_images < 1:
        raise InputError(f"--images {num_images}: 1 or more")
    OutputFolder(output, OUTPUT_NAMES)
    candidates, test_set = read_runs(folders, device=measuring.device, opts=opts)
    models = [load_candidate(candidate) for candidate in candidates]
    accuracies, facts = _measure_accuracies(candidates, test_set, num_draws)
    tradeoff = Tradeoff(
        names=[candidate.name for candidate in candidates],
        sources=[str(candidate.source) for candidate in candidates],
        costs=[count_weights(model) for model in models],
        accuracies=accuracies,
        curves=[read_curves(candidate.source) for candidate in candidates],
        differences=find_differences(candidates),
        facts=facts,
        notes=["Measuring the cost has not ended."],
    )
    write_tradeoff(tradeoff, output)
    logger.info("AP is written; measuring the cost")
    inputs = [load_test_inputs(candidate, test_set, num_images) for candidate in candidates]
    detectors = dict(zip(tradeoff.names, zip(models, inputs, strict=True), strict=True))
    what = f"{len(inputs[0])} images from all over {test_set.name}, resized as in the test"
    return _measure_and_write(tradeoff, detectors, measuring, what, output)


def compare_configs(
    files: Sequence[str],
    depths: Sequence[int],
    output: Path,
    measuring: Measuring,
    *,
    input_size: tuple[int, int] = (800, 1344),
    opts: Sequence[str] = (),
) -> tuple[Tradeoff, Verdict]:
    """Compare what detectors cost that have no weights, and write that to ``output``.

    Args:
        depths: of each config; empty: the one that it has.
        input_size: height and width in pixels.

    Raises:
        InputError: a config cannot be used, or the size is too small.
    """
    if min(input_size) < MIN_SIZE:
        raise InputError(f"--input-size {input_size[0]} {input_size[1]}: {MIN_SIZE} pixels or more each")
    OutputFolder(output, OUTPUT_NAMES)
    candidates = read_configs(files, depths, device=measuring.device, opts=opts)
    detectors = {}
    for candidate in candidates:
        model = load_candidate(candidate)
        detectors[candidate.name] = model, make_random_inputs(candidate, model, input_size)
    tradeoff = Tradeoff(
        names=list(detectors),
        sources=[str(candidate.source) for candidate in candidates],
        costs=[count_weights(model) for model, _ in detectors.values()],
        facts={"configs": ", ".join(files)},
    )
    what = f"one random image of {input_size[0]}x{input_size[1]} pixels, with random weights and norms calibrated on it"
    return _measure_and_write(tradeoff, detectors, measuring, what, output)


def write_tradeoff(tradeoff: Tradeoff, output: Path) -> Verdict:
    """Write tradeoff.json and tradeoff.html; what they say in words is returned."""
    verdict = find_verdict(tradeoff)
    numbers = json.dumps(without_nan(summarize(tradeoff, verdict.sentences)), indent=1)
    (output / "tradeoff.json").write_text(numbers + "\n", encoding="utf-8")
    (output / "tradeoff.html").write_text(render_tradeoff(tradeoff, verdict), encoding="utf-8")
    return verdict


def _measure_accuracies(
    candidates: Sequence[Candidate], test_set: TestSet, num_draws: int
) -> tuple[list[Accuracy], dict[str, str]]:
    rules = {"crowd_as_objects": test_set.crowd_as_objects, "classes": test_set.classes}
    truth = read_truth(test_set.annotations, None, **rules)
    runs = [read_detections(candidate.results, truth) for candidate in candidates]
    first, *others = [find_iou_types(run.rows, truth) for run in runs]
    accuracies = [
        measure_accuracy(
            truth,
            runs,
            iou_type,
            kpt_oks_sigmas=test_set.kpt_oks_sigmas,
            num_draws=num_draws,
            max_detections=test_set.max_detections,
        )
        for iou_type in first
        if all(iou_type in other for other in others)
    ]
    facts = {
        "test set": f"{test_set.name}: {test_set.annotations} ({truth.usage}), sha256 {hash_file(test_set.annotations)}"
    }
    for accuracy in accuracies:
        limit = resolve_limit(accuracy.iou_type, test_set.max_detections)
        cost = f"; {accuracy.limit_cost}" if accuracy.limit_cost else ""
        facts[f"limit, {accuracy.iou_type}"] = f"{limit} detections of an image and class{cost}"
    for candidate in candidates:
        facts[candidate.name] = (
            f"{candidate.source}; weights {candidate.weights.name}, sha256 {hash_file(candidate.weights)}; results "
            f"sha256 {hash_file(candidate.results)}"
        )
    return accuracies, facts


def _measure_and_write(
    tradeoff: Tradeoff, detectors: dict, measuring: Measuring, what: str, output: Path
) -> tuple[Tradeoff, Verdict]:
    costs, notes = measure_costs(
        detectors, device=measuring.device, dtype=PRECISIONS[measuring.precision], pairs=measuring.pairs
    )
    machine = ", ".join(f"{key} {value}" for key, value in describe_machine(measuring.device).items())
    measured = {"measured on": f"{what}; {measuring.device}, {measuring.precision}", "machine": machine}
    tradeoff = replace(
        tradeoff,
        costs=[costs[name] for name in tradeoff.names],
        facts={**tradeoff.facts, **measured, **describe_software()},
        notes=notes,
    )
    return tradeoff, write_tradeoff(tradeoff, output)
