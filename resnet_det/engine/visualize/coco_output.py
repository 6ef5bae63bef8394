"""Predictions on any files as COCO results, with the list of images that gives the ids a meaning."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import Instances

from resnet_det.evaluation.instances import make_results
from resnet_det.outputs import OutputFolder

RESULTS_NAME = "coco_instances_results.json"  # as training calls it
IMAGES_NAME = "images.json"


class CocoOutput:
    """Collects predictions and writes them as ``coco_instances_results.json``.

    ``images.json`` beside it is a COCO file with the images and categories, and without annotations; its file names
    begin at the folder that all inputs share. With it the results can be drawn and evaluated again.
    """

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str], category_ids: Sequence[int]) -> None:
        """Args:
        paths: all images and videos there will be.
        category_ids: of the classes, in their order.
        """
        self.root = Path(os.path.commonpath([path.resolve().parent for path in paths])) if paths else Path()
        self.class_names, self.category_ids = list(class_names), list(category_ids)
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._results)

    def add(self, path: Path, size: tuple[int, int], instances: Instances, *, frame: int | None = None) -> None:
        """Add what was found on an image, or on frame number ``frame`` of a video.

        Args:
            size: height and width of the image in pixels.
        """
        image_id = len(self._images) + 1
        name = path.resolve().relative_to(self.root).as_posix()
        entry = {"id": image_id, "file_name": name, "height": size[0], "width": size[1]}
        if frame is not None:
            entry |= {"file_name": f"{name}#{frame}", "frame": frame}
        self._images.append(entry)
        for result in make_results(instances, image_id):
            self._results.append({**result, "category_id": self.category_ids[result["category_id"]]})

    def write(self, files: OutputFolder) -> None:
        """Write both files."""
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        images = {"images": self._images, "annotations": [], "categories": categories}
        files.claim(RESULTS_NAME).write_text(json.dumps(self._results), encoding="utf-8")
        files.claim(IMAGES_NAME).write_text(json.dumps(images), encoding="utf-8")
