"""Panoptic quality of COCO panoptic data sets, with the files and result keys of Detectron2's COCOPanopticEvaluator.

Why not Detectron2's: it needs panopticapi, which is not on the package index. hotcoco computes the same numbers. And
two images of one name in different folders would have one file there, and images left out by TEST.MAX_IMAGES no
prediction.
Source: Kirillov et al., Panoptic Segmentation, arXiv 1801.00868, section 4.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco.panoptic
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from tabulate import tabulate

from resnet_det.data.coco.json_files import read_json
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

_METRICS = ("pq", "sq", "rq")
_GROUPS = {"All": "", "Things": "_th", "Stuff": "_st"}


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ, 0 to 100, of all classes, things and stuff; images that the model did not see do not count."""

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            output_dir: where predictions.json goes: the segments of each image, without their pixels.

        Raises:
            InputError: the data set has no panoptic ground truth.
        """
        self.dataset_name, self.output_dir = dataset_name, output_dir
        metadata = MetadataCatalog.get(dataset_name)
        self.json_file = Path(PathManager.get_local_path(metadata.panoptic_json))
        self.folder = Path(PathManager.get_local_path(metadata.panoptic_root))
        for path, is_there in ((self.json_file, self.json_file.is_file()), (self.folder, self.folder.is_dir())):
            if not is_there:
                raise InputError(f"data set {dataset_name}: no {path}, which has its panoptic segments")
        self.thing_ids = {place: key for key, place in metadata.thing_dataset_id_to_contiguous_id.items()}
        self.stuff_ids = {place: key for key, place in metadata.stuff_dataset_id_to_contiguous_id.items()}
        self.label_divisor = metadata.get("label_divisor")
        self.reset()

    def reset(self) -> None:
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            pixels, segments = output["panoptic_seg"]
            pixels = pixels.cpu().numpy()
            if segments is None:
                pixels, segments = self._split_labels(pixels)
            file = io.BytesIO()
            Image.fromarray(ids_to_rgb(pixels)).save(file, format="PNG")
            self._predictions.append(
                {
                    "image_id": image["image_id"],
                    "file_name": f"{Path(image['file_name']).stem}.png",
                    "segments_info": [self._describe(segment) for segment in segments],
                    "png": file.getvalue(),
                }
            )

    def _split_labels(self, labels: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Ids and segments of a picture of class * label_divisor + instance, in which -1 is void."""
        things = set(self.thing_ids)
        segments = []
        for label in np.unique(labels[labels >= 0]).tolist():
            place = label // self.label_divisor
            segments.append({"id": label + 1, "category_id": place, "isthing": place in things})
        return labels + 1, segments

    def _describe(self, segment: dict[str, Any]) -> dict[str, Any]:
        """A segment with the data set's id of its class; models that give no "isthing" give that id themselves."""
        kept = {key: value for key, value in segment.items() if key != "isthing"}
        if segment.get("isthing") is not None:
            ids = self.thing_ids if segment["isthing"] else self.stuff_ids
            kept["category_id"] = ids[segment["category_id"]]
        return kept

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """The results under "panoptic_seg", 0 to 100; empty in other processes than the first.

        Raises:
            InputError: the ground truth cannot be used.
        """
        comm.synchronize()
        predictions = list(itertools.chain(*comm.gather(self._predictions, dst=0)))
        if not comm.is_main_process():
            return OrderedDict()
        if not predictions:
            logger.warning("No image of %s went through the model: nothing to evaluate", self.dataset_name)
            return OrderedDict()
        truth = read_json(self.json_file)
        with tempfile.TemporaryDirectory(prefix="panoptic_") as folder:
            for number, prediction in enumerate(predictions):  # images of several folders may have one name
                Path(folder, f"{number}.png").write_bytes(prediction.pop("png"))
            if self.output_dir:
                write_json({**truth, "annotations": predictions}, Path(self.output_dir, "predictions.json"))
            for number, prediction in enumerate(predictions):
                prediction["file_name"] = f"{number}.png"
            found = self._compute(truth, predictions, Path(folder))
        rows = [[name, *(100 * found[name][key] for key in _METRICS), found[name]["n"]] for name in _GROUPS]
        table = tabulate(rows, ["", "PQ", "SQ", "RQ", "categories"], tablefmt="pipe", floatfmt=".3f")
        logger.info("Panoptic quality on %s:\n%s", self.dataset_name, table)
        results = {
            f"{key.upper()}{suffix}": 100 * found[name][key] if found[name]["n"] else float("nan")
            for name, suffix in _GROUPS.items()
            for key in _METRICS
        }
        return OrderedDict(panoptic_seg=results)

    def _compute(self, truth: dict[str, Any], predictions: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        """What panopticapi's ``pq_compute`` gives, on the images of ``predictions``."""
        seen = {prediction["image_id"] for prediction in predictions}
        images = [image for image in truth["images"] if image["id"] in seen]
        annotations = [entry for entry in truth["annotations"] if entry["image_id"] in seen]
        lacking = seen - {entry["image_id"] for entry in annotations}
        if lacking:
            raise InputError(
                f"{self.json_file}: no segments of {len(lacking)} of the {len(seen)} images that were evaluated, such "
                f"as image_id {next(iter(lacking))!r}"
            )
        paths = folder / "truth.json", folder / "predictions.json"
        for path, entries in zip(paths, (annotations, predictions), strict=True):
            write_json({**truth, "images": images, "annotations": entries}, path)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return hotcoco.panoptic.pq_compute(*paths, gt_folder=self.folder, pred_folder=folder)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.json_file}: {error}") from None


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Ids of segments (H, W) as colours (H, W, 3) uint8 in COCO's panoptic format: R + 256 G + 256 * 256 B."""
    return np.stack([ids.astype(np.int64) >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def write_json(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
