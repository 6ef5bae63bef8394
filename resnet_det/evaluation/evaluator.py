"""The evaluator of COCO data sets: Detectron2's COCOEvaluator on a fast library."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from resnet_det.data.coco import CocoData, judge_content, read_coco
from resnet_det.data.loading.coco_json import reading_rules
from resnet_det.evaluation.coco import metric_names, read_metrics, run_coco_evaluation, tabulate_classes
from resnet_det.evaluation.curves import compute_curves, find_threshold
from resnet_det.evaluation.detections import Detections, make_detections
from resnet_det.evaluation.ground_truth import GroundTruth, make_ground_truth
from resnet_det.evaluation.instances import make_results
from resnet_det.evaluation.limits import find_limit_cost, resolve_limit
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.success import SUCCESS_METRICS, compute_success
from resnet_det.evaluation.text import format_classes, format_metrics

logger = logging.getLogger(__name__)


class FastCOCOEvaluator(DatasetEvaluator):
    """AP and AR of boxes, masks and keypoints, with the files and result keys of Detectron2's COCOEvaluator.

    Beside those keys: COCO's average recalls (``AR1`` ... ``ARl``), ``AP-<class>`` for data sets with one class, too,
    and ``SUCCESS_METRICS``. Images that did not go through the model (RESNET_DET.TEST.MAX_IMAGES) are not counted as
    missed.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        kpt_oks_sigmas: Sequence[float] = (),
        max_detections: int | None = None,
    ) -> None:
        """
        Args:
            tasks: of "bbox", "segm", "keypoints"; those that the predictions have, if not given.
            distributed: collect the predictions of all processes, and evaluate in the first.
            output_dir: where coco_instances_results.json and instances_predictions.pth go.
            max_detections: of an image and class that count; None: COCO's limit.
        """
        self.dataset_name, self.tasks = dataset_name, tasks
        self.distributed, self.output_dir = distributed, output_dir
        self.kpt_oks_sigmas, self.max_detections = kpt_oks_sigmas, max_detections
        self.reset()

    def reset(self) -> None:
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                instances = make_results(output["instances"].to("cpu"), image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": instances})

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """The results of each task, 0 to 100; empty in other processes than the first."""
        predictions = self._predictions
        if self.distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        if not predictions:
            logger.warning("No image of %s went through the model: nothing to evaluate", self.dataset_name)
            return OrderedDict()
        metadata = MetadataCatalog.get(self.dataset_name)
        if self.output_dir:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            torch.save(predictions, os.path.join(self.output_dir, "instances_predictions.pth"))
        results = [row for prediction in predictions for row in prediction["instances"]]
        if metadata.get("thing_dataset_id_to_contiguous_id") is not None:
            category_ids = {place: key for key, place in metadata.thing_dataset_id_to_contiguous_id.items()}
            for row in results:
                row["category_id"] = category_ids[row["category_id"]]
        if self.output_dir:
            Path(self.output_dir, "coco_instances_results.json").write_text(json.dumps(results), encoding="utf-8")
        data = self._read_data()
        if not data.has_annotations:
            logger.info("%s has no annotations: predictions are written, not evaluated", self.dataset_name)
            return OrderedDict()
        return self._evaluate(data, results, {prediction["image_id"] for prediction in predictions})

    def _read_data(self) -> CocoData:
        metadata = MetadataCatalog.get(self.dataset_name)
        if metadata.get("json_file") is None:
            return judge_content(convert_to_coco_dict(self.dataset_name))
        return read_coco(metadata.json_file, metadata.get("image_root"), **reading_rules(self.dataset_name))

    def _evaluate(
        self, data: CocoData, results: list[dict[str, Any]], image_ids: set[Hashable]
    ) -> OrderedDict[str, dict[str, float]]:
        data.raise_problems(self.dataset_name)
        truth = make_ground_truth(data, image_ids)
        logger.info("%s: evaluated on %s", self.dataset_name, truth.usage)
        vars(MetadataCatalog.get(self.dataset_name))["usage_in_test"] = truth.usage
        detections = make_detections(results, truth)
        evaluated: OrderedDict[str, dict[str, float]] = OrderedDict()
        for task in self.tasks or find_tasks(results):
            if not len(detections):
                logger.warning("The model found nothing in %s: %s AP is 0", self.dataset_name, task)
            if not truth.has(task):
                logger.warning("No object of %s has anything for %s: its AP is NaN", self.dataset_name, task)
                evaluated[task] = dict.fromkeys(
                    (*metric_names(task, self.max_detections), *SUCCESS_METRICS), float("nan")
                )
                continue
            limit = resolve_limit(task, self.max_detections)
            evaluation = run_coco_evaluation(
                truth, detections, task, kpt_oks_sigmas=self.kpt_oks_sigmas, max_detections=limit
            )
            cost = find_limit_cost(truth.for_task(task), limit)
            if cost:
                logger.warning("%s, %s: %s", self.dataset_name, task, cost)
            metrics = read_metrics(evaluation) | self._compute_success(truth, detections, task, limit)
            classes = tabulate_classes(evaluation, truth, detections)
            logger.info("Evaluation results for %s:\n%s", task, format_metrics(metrics))
            logger.info("Per-category %s AP:\n%s", task, format_classes(classes))
            evaluated[task] = metrics | {f"AP-{result.name}": result.ap for result in classes}
        return evaluated

    def _compute_success(self, truth: GroundTruth, detections: Detections, task: str, limit: int) -> dict[str, float]:
        """TP / (TP + FP + FN) at the score of the best mean F1 on these images."""
        truth = truth.for_task(task)
        overlaps = compute_overlaps(truth, detections, task, kpt_oks_sigmas=self.kpt_oks_sigmas)
        matches = match_detections(truth, detections, overlaps, task, max_detections=limit)
        threshold = find_threshold(compute_curves(truth, detections, matches))
        return compute_success(truth, detections, matches, threshold).metrics


def find_tasks(results: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of evaluation that the first of ``results`` has something for; boxes if there are none."""
    keys = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
    return [task for task, key in keys.items() if results and key in results[0]] or ["bbox"]
