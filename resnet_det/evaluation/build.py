"""Which evaluators a data set needs, and where results go."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)

from resnet_det.errors import InputError
from resnet_det.evaluation.coco import metric_names
from resnet_det.evaluation.evaluator import FastCOCOEvaluator
from resnet_det.evaluation.instances import make_results
from resnet_det.evaluation.limits import MAX_DETECTIONS
from resnet_det.evaluation.panoptic import PanopticEvaluator
from resnet_det.evaluation.success import SUCCESS_METRICS

ANY_NUMBER = 1_000_000  # of detections that count


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """The evaluators for the format of a data set; they write to ``output_folder`` (see :func:`inference_folder`).

    Raises:
        InputError: there are none for that format.
    """
    folder = output_folder or str(inference_folder(cfg, dataset_name))
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind == "pascal_voc":
        return PascalVOCDetectionEvaluator(dataset_name)
    if kind == "lvis":
        return _LVISEvaluator(dataset_name, output_dir=folder)
    evaluators: list[DatasetEvaluator] = []
    if kind in ("coco", "coco_panoptic_seg"):
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
        if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
            evaluators.append(COCOEvaluator(dataset_name, ["bbox"], output_dir=folder))
        else:
            evaluators.append(
                FastCOCOEvaluator(
                    dataset_name,
                    coco_tasks(cfg),
                    output_dir=folder,
                    kpt_oks_sigmas=sigmas,
                    max_detections=find_max_detections(cfg),
                )
            )
    if kind in ("sem_seg", "coco_panoptic_seg"):
        evaluators.append(SemSegEvaluator(dataset_name, distributed=True, output_dir=folder))
    if kind == "coco_panoptic_seg":
        evaluators.append(PanopticEvaluator(dataset_name, folder))
    if not evaluators:
        raise InputError(f"DATASETS.TEST: no evaluator for {dataset_name}, whose format is {kind!r}")
    return DatasetEvaluators(evaluators) if len(evaluators) > 1 else evaluators[0]


class _LVISEvaluator(LVISEvaluator):
    """Detectron2's, for masks that are in their boxes, too."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                rows = make_results(output["instances"].to("cpu"), image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": rows})
            else:
                super().process([image], [output])


def coco_tasks(cfg: CfgNode) -> list[str]:
    """What a detector is evaluated by on data in COCO format."""
    return ["bbox"] + ["segm"] * cfg.MODEL.MASK_ON + ["keypoints"] * cfg.MODEL.KEYPOINT_ON


def list_metrics(cfg: CfgNode) -> list[str] | None:
    """Names of the results that an evaluation will give, such as "bbox/AP"; None where they are not known before."""
    if cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "RetinaNet"):
        return None
    names = []
    for dataset in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(dataset)
        classes = metadata.get("thing_classes")
        if metadata.get("evaluator_type") != "coco" or classes is None:
            return None
        prefix = f"{dataset}/" if len(cfg.DATASETS.TEST) > 1 else ""
        for task in coco_tasks(cfg):
            metrics = [*metric_names(task, find_max_detections(cfg)), *SUCCESS_METRICS]
            metrics += [f"AP-{name}" for name in classes]
            names += [f"{prefix}{task}/{metric}" for metric in metrics]
    return names


def find_max_detections(cfg: CfgNode) -> int | None:
    """How many detections of an image and class count: as many as the model gives, and not less than COCO's limit,
    which None stands for."""
    most, test = cfg.TEST.DETECTIONS_PER_IMAGE, cfg.RESNET_DET.TEST
    if test.SLICE:
        most = max(most, test.SLICE_DETECTIONS or ANY_NUMBER)
    return most if most > MAX_DETECTIONS["bbox"] else None


def inference_folder(cfg: CfgNode, dataset_name: str) -> Path:
    """Where what the model finds goes: OUTPUT_DIR/inference, and there one folder for each of several data sets."""
    folder = Path(cfg.OUTPUT_DIR, "inference")
    return folder if len(cfg.DATASETS.TEST) <= 1 else folder / dataset_name


def write_results(
    results: Mapping[str, Any], output_dir: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Path:
    """Write evaluation results (0 to 100) to ``output_dir``/results.json; what was not computed (NaN) is null there.

    Args:
        facts: what they are of, which goes under "facts"; see :func:`describe_use`.
    """
    path = Path(output_dir, "results.json")
    content = _without_nan(results) | ({"facts": dict(facts)} if facts else {})
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def describe_use(train_names: Sequence[str], test_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How many images, objects, masks and keypoints of each data set were trained and evaluated on, and how many were
    left out and why, as far as this process has loaded them."""
    facts = {}
    sets = {"trained on": ("usage_when_loaded", train_names), "evaluated on": ("usage_in_test", test_names)}
    for what, (key, names) in sets.items():
        known = {name: MetadataCatalog.get(name).get(key) for name in names}
        known = {name: asdict(usage) for name, usage in known.items() if usage is not None}
        if known:
            facts[what] = known
    return facts


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    value = float(value)
    return value if math.isfinite(value) else None
