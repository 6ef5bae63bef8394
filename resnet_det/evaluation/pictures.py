"""Which images show the errors best, with ground truth and predictions drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_det.data.coco.keypoints import colour_limbs
from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.errors import ERROR_TYPES
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.verdicts import judge
from resnet_det.visualization.drawing import KEYPOINT_THRESHOLD
from resnet_det.visualization.gallery import Picture, Shape, encode_image, make_shape
from resnet_det.visualization.skeleton import NO_SKELETON, make_skeleton

PER_TYPE = 6  # images shown of each type of error
MAX_SHAPES = 60  # drawn on a picture


class PictureMaker:
    """Makes pictures of a run's images; each image file is read once."""

    def __init__(self, truth: GroundTruth, detections: Detections, analysis: Analysis, folder: Path) -> None:
        self.truth, self.detections, self.analysis, self.folder = truth, detections, analysis, folder
        known = truth.keypoints
        self._skeleton = make_skeleton(known.names, colour_limbs(known)) if known else NO_SKELETON
        self._verdicts = judge(truth, detections, analysis.matches, analysis.errors, analysis.threshold.value)
        self._encoded: dict[int, tuple[str, int, int, float] | None] = {}

    def make(self, place: int, key: str, caption: str) -> Picture | None:
        """The picture of an image with the objects and the detections that are shown; None if it
        cannot be read."""
        if place not in self._encoded:
            self._encoded[place] = encode_image(self.folder / str(self.truth.images[place].get("file_name", "")))
        encoded = self._encoded[place]
        if encoded is None:
            return None
        uri, width, height, scale = encoded
        title = str(self.truth.images[place].get("file_name", self.truth.images[place]["id"]))
        shown = self._shown(place)
        return Picture(
            key, title, caption, width, height, uri, self._truth(place, scale), self._predictions(shown, scale)
        )

    def _shown(self, place: int) -> np.ndarray:
        detections, matches = self.detections, self.analysis.matches
        rows = np.flatnonzero(
            (detections.image == place) & matches.counted & (detections.score >= self.analysis.threshold.value)
        )
        return rows[np.argsort(-detections.score[rows], kind="stable")][:MAX_SHAPES]

    def _truth(self, place: int, scale: float) -> list[Shape]:
        truth, verdicts = self.truth, self._verdicts
        shapes = []
        for row in np.flatnonzero(truth.image == place)[:MAX_SHAPES]:
            kind, label = str(verdicts.object_kind[row]), verdicts.object_labels[row]
            shapes.append(self._shape(truth.box[row], kind, label, scale, truth.annotations[row], place))
        return shapes

    def _predictions(self, shown: np.ndarray, scale: float) -> list[Shape]:
        detections, verdicts = self.detections, self._verdicts
        shapes = []
        for row, box in zip(shown, detections.box(shown), strict=True):
            kind, label = str(verdicts.detection_kind[row]), verdicts.detection_labels[row]
            shapes.append(self._shape(box, kind, label, scale, detections.rows[row], int(detections.image[row])))
        return shapes

    def _shape(self, box: np.ndarray, kind: str, label: str, scale: float, row: dict, place: int) -> Shape:
        height, width = self.truth.size[place].astype(int).tolist()
        has_mask = self.analysis.iou_type == "segm" and height > 0
        segmentation = row.get("segmentation") if has_mask else None
        keypoints = None
        if self.analysis.iou_type == "keypoints" and row.get("keypoints"):
            keypoints = np.reshape(row["keypoints"], (-1, 3)).astype(float)
            if "score" in row:  # what is predicted has scores in place of visibilities
                keypoints[:, 2] = keypoints[:, 2] > KEYPOINT_THRESHOLD
        return make_shape(
            box,
            kind,
            label,
            scale,
            segmentation=segmentation,
            height=height,
            width=width,
            keypoints=keypoints,
            skeleton=self._skeleton,
        )


def rank_images(truth: GroundTruth, detections: Detections, analysis: Analysis) -> dict[str, list[tuple[int, str]]]:
    """The worst images of each type of error, with what is wrong in them.

    False detections count by their scores, from the run's best score on; misses by their number.
    """
    errors, count = analysis.errors, len(truth.images)
    loud = detections.score >= analysis.threshold.value
    ranked = {}
    for place, name in enumerate(ERROR_TYPES):
        if name == "Miss":
            number = weight = np.bincount(truth.image[errors.missed], minlength=count)
        else:
            rows = np.flatnonzero((errors.type == place) & loud)
            number = np.bincount(detections.image[rows], minlength=count)
            weight = np.bincount(detections.image[rows], weights=detections.score[rows], minlength=count)
        order = [int(image) for image in np.argsort(-weight, kind="stable")[:PER_TYPE] if number[image]]
        ranked[name] = [(image, f"{number[image]} of type {name}") for image in order]
    return ranked


def make_gallery(maker: PictureMaker, ranked: dict[str, list[tuple[int, str]]]) -> dict[str, list[Picture]]:
    """The pictures of each type of error; types without any are left out."""
    gallery = {}
    for name, images in ranked.items():
        pictures = [maker.make(place, f"{name}-{place}", caption) for place, caption in images]
        gallery[name] = [picture for picture in pictures if picture is not None]
    return {name: pictures for name, pictures in gallery.items() if pictures}


def collect_images(pictures: Sequence[Picture]) -> dict[str, Picture]:
    """One picture for each different image, by its data URI, so that the page holds each image once."""
    return {picture.uri: picture for picture in reversed(pictures)}
