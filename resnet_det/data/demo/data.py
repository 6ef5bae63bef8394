"""The demo data: turned and overlapping shapes on textured backgrounds, in COCO format, made here in seconds.

Everything is drawn with whole numbers from a frozen random stream and stored uncompressed (BMP), so the files are the
same to the byte on every machine. Objects are 16 to 160 pixels; annotations cover what is visible of them. A few
clusters of small shapes are crowd regions with run-length masks. ``keypoints_*.json`` holds the classes with keypoints
alone, as COCO's person files do.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_det.data.demo.shapes import (
    KEYPOINT_NAMES,
    SHAPES,
    UNITS_PER_PX,
    Shape,
    coverage,
    outline_area_px,
    place,
    polygon_area,
    trace,
)

SPLITS = {"train": (480, 11), "val": (80, 12)}  # number of images, seed
SIDE_RANGE_PX = (176, 256)
DIAMETERS_PX = (16, 18, 20, 23, 25, 28, 32, 36, 40, 45, 51, 57, 64, 72, 81, 91, 102, 114, 128, 144, 160)
OBJECTS_RANGE = (3, 10)
MAX_TURN_DEGREES = 40
CROWD_EVERY = 24  # images
CROWD_SIZE = 12  # shapes
MIN_VISIBLE_SHARE = 50  # percent of a shape that must stay visible
MIN_VISIBLE_PIXELS = 40
MIN_COLOUR_DISTANCE = 150  # sum over the three channels


def make_demo_data(folder: str | os.PathLike[str]) -> Path:
    """Write the demo data to ``folder`` unless they are there: ``train/``, ``val/`` and ``annotations/``.

    The files are written beside ``folder`` and moved there at the end, so that several processes may ask for them at
    once and an interrupted call leaves nothing half done.

    Returns:
        ``folder``.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for split, (num_images, seed) in SPLITS.items():
            write_split(work, split, num_images, seed)
        work.chmod(0o755)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def write_split(folder: Path, split: str, num_images: int, seed: int) -> None:
    """Draw ``num_images`` scenes and write them with ``annotations/{instances,keypoints}_<split>.json``."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    random = np.random.RandomState(seed)  # its stream is frozen, unlike that of np.random.Generator
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        width, height = (int(side) for side in random.randint(SIDE_RANGE_PX[0], SIDE_RANGE_PX[1] + 1, size=2))
        scene = Scene(random, height, width)
        if image_id % CROWD_EVERY == 0:
            scene.add_crowd()
        for _ in range(random.randint(OBJECTS_RANGE[0], OBJECTS_RANGE[1] + 1)):
            scene.add_object()
        file_name = f"{image_id:06d}.bmp"
        Image.fromarray(scene.pixels.astype(np.uint8)).save(folder / split / file_name)
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for annotation in scene.annotations():
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    _write_json(folder / "annotations" / f"instances_{split}.json", images, annotations, SHAPES)
    with_keypoints = [shape for shape in SHAPES if shape.keypoints]
    ids = {_category_id(shape) for shape in with_keypoints}
    kept = [annotation for annotation in annotations if annotation["category_id"] in ids and not annotation["iscrowd"]]
    _write_json(folder / "annotations" / f"keypoints_{split}.json", images, kept, with_keypoints)


class Scene:
    """One image with the shapes drawn so far, the latest in front."""

    def __init__(self, random: np.random.RandomState, height: int, width: int) -> None:
        self.random, self.height, self.width = random, height, width
        self.pixels = self._texture(self._colour(), height, width, contrast=40)
        self.objects: list[dict] = []

    def annotations(self) -> list[dict]:
        """COCO annotations of what is visible of each object."""
        return [self._annotation(item) for item in self.objects]

    def add_object(self) -> None:
        """Draw one shape; none if ten places tried would hide too much of another."""
        shape = SHAPES[self.random.randint(len(SHAPES))]
        radius = DIAMETERS_PX[self.random.randint(len(DIAMETERS_PX))] // 2
        for _ in range(10):
            if self._draw([self._place(shape, self._anywhere(), radius)], is_crowd=False):
                return

    def add_crowd(self) -> None:
        """Draw a cluster of small shapes of one class, to be annotated as one crowd region."""
        shape = SHAPES[self.random.randint(len(SHAPES))]
        x, y = self._anywhere()
        offsets = self.random.randint(-24, 25, size=(CROWD_SIZE, 2)).tolist()
        self._draw([self._place(shape, (x + dx, y + dy), 7) for dx, dy in offsets], is_crowd=True)

    def _anywhere(self) -> tuple[int, int]:
        return int(self.random.randint(0, self.width)), int(self.random.randint(0, self.height))

    def _place(self, shape: Shape, centre_px: tuple[int, int], radius_px: int) -> tuple[Shape, np.ndarray, np.ndarray]:
        degree = int(self.random.randint(-MAX_TURN_DEGREES, MAX_TURN_DEGREES + 1))
        outline = place(shape.outline, centre_px, radius_px, degree)
        keypoints = place(shape.keypoints or ((0, 0),), centre_px, radius_px, degree)
        return shape, outline, keypoints

    def _draw(self, placed: list[tuple[Shape, np.ndarray, np.ndarray]], *, is_crowd: bool) -> bool:
        """Draw the shapes over what is there, unless they would be too small or hide too much; tells which."""
        alpha = np.zeros((self.height, self.width), dtype=np.int32)
        for _, outline, _ in placed:
            alpha = np.maximum(alpha, coverage(outline, self.height, self.width))
        mask = alpha >= 2
        pixels = int(mask.sum()) if is_crowd else outline_area_px(placed[0][1])
        if _hides_too_much(mask, pixels) or any(
            _hides_too_much(item["visible"] & ~mask, item["pixels"]) for item in self.objects
        ):
            return False
        for item in self.objects:
            item["visible"] &= ~mask
        window = _window(alpha > 0)
        behind, alpha = self.pixels[window], alpha[window][:, :, None]
        colour = self._colour(away_from=self.pixels[mask].sum(axis=0) // mask.sum())
        behind += (self._texture(colour, *alpha.shape[:2], contrast=25) - behind) * alpha // 4
        shape, _, keypoints = placed[0]
        self.objects.append(
            {"shape": shape, "visible": mask, "pixels": pixels, "keypoints": keypoints, "is_crowd": is_crowd}
        )
        return True

    def _colour(self, away_from: np.ndarray | None = None) -> np.ndarray:
        """A random colour; with ``away_from``, one that differs from it enough to be seen."""
        while True:
            colour = self.random.randint(20, 236, size=3).astype(np.int64)
            if away_from is None or np.abs(colour - away_from).sum() >= MIN_COLOUR_DISTANCE:
                return colour

    def _texture(self, colour: np.ndarray, height: int, width: int, *, contrast: int) -> np.ndarray:
        """``colour`` with smooth noise at two scales and, at times, stripes: (height, width, 3) int32 in 0..255."""
        noise = self._noise(32, height, width, contrast) + self._noise(5, height, width, contrast // 2)
        if self.random.randint(3) == 0:
            a, b, period = (int(value) for value in self.random.randint((-3, -3, 12), (4, 4, 40)))
            y, x = np.ogrid[:height, :width]
            noise += ((a * x + b * y) // period % 2 * 2 - 1)[:, :, None].astype(np.int32) * (contrast // 4)
        return np.clip(noise + colour.astype(np.int32), 0, 255)

    def _noise(self, cell: int, height: int, width: int, contrast: int) -> np.ndarray:
        """Random values at the corners of cells of ``cell`` pixels, linear in between: (height, width, 3) int32."""
        size = (height // cell + 2, width // cell + 2, 3)
        grid = self.random.randint(-contrast, contrast + 1, size=size).astype(np.int32)
        for axis, length in enumerate((height, width)):
            position = np.arange(length, dtype=np.int32)
            fraction = (position % cell).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            near, far = grid.take(position // cell, axis), grid.take(position // cell + 1, axis)
            grid = near * (cell - fraction) + far * fraction
        return grid // (cell * cell)

    def _annotation(self, item: dict) -> dict:
        visible, shape = item["visible"], item["shape"]
        rows, columns = _window(visible)
        annotation = {
            "category_id": _category_id(shape),
            "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            "iscrowd": int(item["is_crowd"]),
        }
        if item["is_crowd"]:
            annotation.update(area=int(visible.sum()), segmentation=_run_lengths(visible))
        else:
            polygons = trace(visible)
            annotation.update(area=sum(map(polygon_area, polygons)), segmentation=polygons)
        if shape.keypoints and not item["is_crowd"]:
            triplets = [self._keypoint(visible, *point) for point in (item["keypoints"] // UNITS_PER_PX).tolist()]
            annotation["num_keypoints"] = sum(triplet[2] > 0 for triplet in triplets)
            annotation["keypoints"] = [value for triplet in triplets for value in triplet]
        return annotation

    def _keypoint(self, visible: np.ndarray, x: int, y: int) -> tuple[int, int, int]:
        """COCO's (x, y, v): v is 2 for a visible point, 1 for a hidden one, and all are 0 outside the image."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return 0, 0, 0
        return x, y, 2 if visible[y, x] else 1


def _hides_too_much(visible: np.ndarray, pixels: int) -> bool:
    """Whether too little is visible of an object that has ``pixels`` as a whole."""
    count = int(visible.sum())
    return count < MIN_VISIBLE_PIXELS or count * 100 < pixels * MIN_VISIBLE_SHARE


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns from the first to the last that ``mask`` has anything in."""
    spans = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return rows, columns


def _category_id(shape: Shape) -> int:
    return SHAPES.index(shape) + 1


def _run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length encoding: lengths of runs of 0 and 1 in turn, down the columns."""
    flat = mask.ravel(order="F").astype(np.int8)
    borders = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    return {"counts": counts if counts[-1] else counts[:-1], "size": list(mask.shape)}


def _write_json(path: Path, images: list[dict], annotations: list[dict], shapes: Sequence[Shape]) -> None:
    categories = [{"id": _category_id(shape), "name": shape.name} for shape in shapes]
    if all(shape.keypoints for shape in shapes):
        for category in categories:
            category["keypoints"] = list(KEYPOINT_NAMES)
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="ascii")
