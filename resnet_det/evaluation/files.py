"""From annotation and results files to numbers and report.html, for tools/evaluate.py and the end of training."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from resnet_det import __version__
from resnet_det.data.coco import read_coco
from resnet_det.data.coco.file import find_annotation_file
from resnet_det.errors import InputError
from resnet_det.evaluation.analysis import Analysis, analyze
from resnet_det.evaluation.bootstrap import NUM_DRAWS
from resnet_det.evaluation.coco import resolve_sigmas
from resnet_det.evaluation.comparison import Comparison, compare
from resnet_det.evaluation.curves import find_threshold, mean_f1
from resnet_det.evaluation.detections import Detections, make_detections
from resnet_det.evaluation.ground_truth import KEYS, GroundTruth, make_ground_truth
from resnet_det.evaluation.pictures import PictureMaker, make_gallery, rank_images
from resnet_det.evaluation.prediction_folder import list_result_files
from resnet_det.evaluation.report import Lead, render_report, write_numbers
from resnet_det.evaluation.results_check import find_iou_types, read_results
from resnet_det.evaluation.thresholds import ScoreThreshold, find_curves
from resnet_det.outputs import OutputFolder
from resnet_det.visualization.gallery import Picture

logger = logging.getLogger(__name__)

REPORT_NAMES = ("evaluation.json", "report.html")
MAX_DIFFERENCES = 12
_PACKAGES = ("detectron2", "torch", "hotcoco", "numpy")


def evaluate_files(
    annotations: Path,
    results: Path,
    *,
    iou_types: Sequence[str] = (),
    images: Path | None = None,
    output: Path | None = None,
    compare_with: Path | None = None,
    facts: Mapping[str, str] | None = None,
    config: str = "",
    kpt_oks_sigmas: Sequence[float] = (),
    num_draws: int = NUM_DRAWS,
    crowd_as_objects: bool = False,
    classes: Sequence[str] = (),
    max_detections: int | None = None,
    score_threshold: float | None = None,
    threshold_from: tuple[Path, Path] | None = None,
    lead: Lead | None = None,
    overwrite: bool = False,
) -> tuple[list[Analysis], list[Comparison]]:
    """Evaluate detections in COCO's result format.

    Args:
        iou_types: of "bbox", "segm", "keypoints"; all that both files have something for, if empty.
        images: the image folder; without it the report has no gallery.
        output: where evaluation.json and report.html go; nothing is written if not given.
        compare_with: the results of another run on the same images.
        facts, config: for the report: what is known of the run, and its config.
        crowd_as_objects: crowd regions are ordinary objects.
        classes: names of those that the detector knows, in its order; empty: all of the file.
        max_detections: of an image and class that count; None: COCO's 100, and 20 of people with keypoints.
        score_threshold: the lowest score of detections that are shown, for what is told of these; None: the one at
            which F1 is best.
        threshold_from: the annotation file and the results by which it is chosen; None: the same as are evaluated. It
            is for ``results``; the run of ``compare_with`` keeps the threshold that is best on the evaluated images.
        lead: what the report begins with.
        overwrite: replace evaluation.json and report.html in ``output``: those of an earlier evaluation of a run.

    Returns:
        The analysis of each kind of evaluation, and its comparison with the other run.

    Raises:
        InputError: a file cannot be used; see :func:`~resnet_det.evaluation.results_check.check_results`.
    """
    if output is not None:
        OutputFolder(output, () if overwrite else REPORT_NAMES)  # before time is spent
    truth = read_truth(annotations, images, crowd_as_objects=crowd_as_objects, classes=classes)
    _check_annotations(truth, iou_types, annotations)
    runs = [read_detections(results, truth, iou_types)]
    iou_types = iou_types or find_iou_types(runs[0].rows, truth)
    paths = [results]
    if compare_with is not None:
        paths.append(compare_with)
        runs.append(read_detections(compare_with, truth, iou_types))
    matching = {"kpt_oks_sigmas": kpt_oks_sigmas, "max_detections": max_detections}
    thresholds: Mapping[str, Sequence[ScoreThreshold | None]] = {}
    if score_threshold is not None:
        thresholds = dict.fromkeys(iou_types, [ScoreThreshold(score_threshold, "given")] * len(runs))
    elif threshold_from is not None:
        check_other_images(annotations, threshold_from[0])
        other = read_truth(threshold_from[0], None, crowd_as_objects=crowd_as_objects, classes=classes)
        _check_annotations(other, iou_types, threshold_from[0])
        found = read_detections(threshold_from[1], other, iou_types)
        chosen = {name: _choose_threshold(other, found, name, threshold_from, matching) for name in iou_types}
        # Another run has scores of its own, and no file that a threshold for them could be chosen by.
        thresholds = {name: [threshold, *[None] * (len(runs) - 1)] for name, threshold in chosen.items()}
    by_type = [
        analyze(truth, runs, iou_type, num_draws=num_draws, score_thresholds=thresholds.get(iou_type), **matching)
        for iou_type in iou_types
    ]
    analyses = [of_runs[0] for of_runs in by_type]
    for analysis in analyses:
        if analysis.limit_cost:
            logger.warning("%s: %s", analysis.iou_type, analysis.limit_cost)
    comparisons = [compare(truth, (runs[0], runs[1]), (a, b)) for a, b in by_type] if compare_with else []
    if output is not None:
        known = _describe_files(truth, annotations, paths, runs)
        known |= _describe_rules(truth, analyses, comparisons, kpt_oks_sigmas)
        known |= dict(facts or {}) | describe_software()
        write_numbers(analyses, known, output / "evaluation.json")
        gallery, differences = _make_pictures(truth, runs, analyses, comparisons, images)
        page = render_report(
            f"{lead.title}: {annotations.stem}" if lead else f"Evaluation on {annotations.stem}",
            analyses,
            facts=known,
            gallery=gallery,
            comparisons=comparisons,
            differences=differences,
            lead=lead,
            config=config,
        )
        (output / "report.html").write_text(page, encoding="utf-8")
    return analyses, comparisons


def read_truth(
    annotations: Path, images: Path | None, *, crowd_as_objects: bool = False, classes: Sequence[str] = ()
) -> GroundTruth:
    """The objects of an annotation file.

    Args:
        images: the image folder, which is looked at, too, if given.
        crowd_as_objects: crowd regions are ordinary objects.
        classes: names of those that are taken, in their order; empty: all.

    Raises:
        InputError: a file is missing or not sound; all problems are listed.
    """
    data = read_coco(annotations, images, crowd_as_objects=crowd_as_objects, classes=classes)
    problems = [f"no image folder {images}"] if images is not None and not images.is_dir() else []
    if not problems and not data.problems() and not len(data.annotations):
        problems.append("it has no annotations that can be used, so that nothing can be right or wrong")
    data.raise_problems(str(annotations), more=problems)
    truth = make_ground_truth(data)
    for line in data.describe_warnings():
        logger.warning("%s: %s", annotations, line)
    return truth


def read_detections(results: Path, truth: GroundTruth, iou_types: Sequence[str] = ()) -> Detections:
    """What a detector found on the images of ``truth``.

    Raises:
        InputError: see :func:`~resnet_det.evaluation.results_check.read_results`.
    """
    detections = make_detections(read_results(results, truth, iou_types), truth)
    if not len(detections):
        logger.warning("%s: it has no detections: AP is 0", results)
    return detections


def check_other_images(annotations: Path, threshold_from: Path) -> None:
    """
    Raises:
        InputError: the threshold would be chosen on the very images that are judged by it.
    """
    if hash_file(find_annotation_file(annotations)) == hash_file(find_annotation_file(threshold_from)):
        raise InputError(
            f"--threshold-from {threshold_from}: the same annotations as {annotations}, whose images are to be judged; "
            "name those of other images, such as a validation set"
        )


def _check_annotations(truth: GroundTruth, iou_types: Sequence[str], path: Path) -> None:
    for iou_type in iou_types:
        if not truth.has(iou_type):
            raise InputError(f"{path}: no annotation has {KEYS[iou_type]}, which --iou-type {iou_type} asks for")


def _choose_threshold(
    truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    threshold_from: tuple[Path, Path],
    matching: Mapping[str, Any],
) -> ScoreThreshold:
    """
    Raises:
        InputError: no detection finds an object.
    """
    curves = find_curves(truth, detections, iou_type, **matching)
    if not mean_f1(curves).any():
        raise InputError(
            f"--threshold-from {threshold_from[1]}: no detection finds an object of {threshold_from[0]} ({iou_type}), "
            "so that no score threshold is the best; name the detections of those images, or give --score-threshold"
        )
    return ScoreThreshold(find_threshold(curves), f"best on {threshold_from[0]}")


def _make_pictures(
    truth: GroundTruth,
    runs: Sequence[Detections],
    analyses: Sequence[Analysis],
    comparisons: Sequence[Comparison],
    images: Path | None,
) -> tuple[dict[str, list[Picture]], list[Picture]]:
    """The gallery of the last kind of evaluation (masks show more than boxes), and the images where two runs differ."""
    if images is None:
        return {}, []
    analysis = analyses[-1]
    maker = PictureMaker(truth, runs[0], analysis, images)
    gallery = make_gallery(maker, rank_images(truth, runs[0], analysis))
    if not comparisons:
        return gallery, []
    other = PictureMaker(truth, runs[1], comparisons[-1].second, images)
    pictures = []
    for place in comparisons[-1].most_different_images(MAX_DIFFERENCES):
        first, second = comparisons[-1].mistakes[place]
        pictures.append(maker.make(place, f"first-{place}", f"this run, {first} mistakes (other run: {second})"))
        pictures.append(other.make(place, f"second-{place}", f"other run, {second} mistakes (this run: {first})"))
    return gallery, [picture for picture in pictures if picture is not None]


def _describe_files(
    truth: GroundTruth, annotations: Path, results: Sequence[Path], runs: Sequence[Detections]
) -> dict[str, str]:
    facts = {"annotations": f"{annotations} ({truth.usage}), sha256 {hash_file(annotations)}"}
    for name, path, run in zip(("results", "other results"), results, runs, strict=False):
        facts[name] = f"{path} ({len(run):,} detections), sha256 {hash_results(path)}"
    return facts


def _describe_rules(
    truth: GroundTruth,
    analyses: Sequence[Analysis],
    comparisons: Sequence[Comparison],
    kpt_oks_sigmas: Sequence[float],
) -> dict[str, str]:
    """What the numbers depend on besides the files."""
    facts = {}
    for analysis in analyses:
        cost = f"; {analysis.limit_cost}" if analysis.limit_cost else ""
        facts[f"limit, {analysis.iou_type}"] = f"{analysis.max_detections} detections of an image and class{cost}"
        facts[f"score threshold, {analysis.iou_type}"] = str(analysis.threshold)
    for comparison in comparisons:
        facts[f"score threshold of the other run, {comparison.second.iou_type}"] = str(comparison.second.threshold)
    if any(analysis.iou_type == "keypoints" for analysis in analyses):
        facts["sigmas"] = ", ".join(f"{sigma:g}" for sigma in resolve_sigmas(truth, kpt_oks_sigmas))
    return facts


def describe_software() -> dict[str, str]:
    """When, with which versions, and from which git commit of this package's checkout, if it is one."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    facts = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": ", ".join([f"resnet_det {__version__}", f"Python {platform.python_version()}", *versions]),
    }
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return facts
    return facts | {"git commit": commit}


def hash_results(path: Path) -> str:
    """The sha256 of a results file, or of all that are in a folder of predictions, one after the other."""
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for part in list_result_files(path)[1]:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
