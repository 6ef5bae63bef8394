"""Training images and annotation files, and the memory of loader workers.

Two parts, beside Detectron2: its DatasetMapper with the default augmentation and masks, on the images of a data set;
and its load_coco_json and DatasetFromList, on a made-up annotation file as large as COCO train2017 (which takes 5 GB of
memory), with the memory that four workers take who read it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetFromList, DatasetMapper
from detectron2.data.datasets.coco import load_coco_json as load_coco_json_theirs
from detectron2.structures import Instances

from resnet_det.benchmark.annotation_file import write_annotation_file
from resnet_det.benchmark.compare import Comparison, compare
from resnet_det.benchmark.processes import NUM_PER_BATCH, measure_shared_memory, run_in_child
from resnet_det.data import FastDatasetMapper, load_coco_json
from resnet_det.data.coco.json_files import paused_garbage_collection
from resnet_det.data.loading.coco_json import iter_coco_json
from resnet_det.data.loading.serialized import SerializedDicts
from resnet_det.errors import InputError

PARTS = ("mapper", "loading")
START_METHODS = ("fork", "spawn")
NUM_WORKERS = 4
MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    coco = Path(os.getenv("DETECTRON2_DATASETS", "datasets"), "coco")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help=f"default: {' '.join(PARTS)}")
    parser.add_argument(
        "--annotations",
        type=Path,
        default=coco / "annotations/instances_train2017.json",
        metavar="JSON",
        help="mapper: the images to map (default: COCO train2017 below DETECTRON2_DATASETS)",
    )
    parser.add_argument("--images", type=Path, default=coco / "train2017", metavar="DIR", help="mapper: their folder")
    parser.add_argument("--max-images", type=int, default=200, metavar="N", help="mapper: the first so many (200)")
    for name, default, what in (
        ("file-images", 118_000, "in the file"),
        ("file-annotations", 860_000, "in the file"),
        ("shared-images", 20_000, "that workers read"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"loading: {what} (default: {default:,})"
        )
    parser.add_argument(
        "--start-methods",
        nargs="+",
        choices=START_METHODS,
        default=START_METHODS,
        help=f"loading: how workers are started (default: {' '.join(START_METHODS)})",
    )


def run(args: argparse.Namespace) -> Iterator[Comparison]:
    """
    Raises:
        InputError: the images to map are not there.
    """
    if "mapper" in args.parts:
        if not args.annotations.is_file():
            raise InputError(f"--annotations {args.annotations}: no such file; set DETECTRON2_DATASETS or name another")
        dicts = load_coco_json(args.annotations, args.images)[: args.max_images]
        yield compare_mappers(dicts, pairs=args.pairs)
    if "loading" in args.parts:
        with tempfile.TemporaryDirectory(prefix="resnet_det_") as folder:
            path = Path(folder, "instances.json")
            write_annotation_file(path, args.file_images, args.file_annotations)
            notes = describe_sharing(path, args.shared_images, args.start_methods)
            yield compare_loading(path, args.file_images, pairs=args.pairs, notes=notes)


def compare_mappers(dicts: Sequence[dict[str, Any]], *, pairs: int) -> Comparison:
    """Map all images of ``dicts`` for training, with one thread, as the worker of a loader does."""
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    mappers = {"Detectron2": DatasetMapper(cfg, True), "resnet_det": FastDatasetMapper(cfg, True)}
    with one_thread():
        return compare(
            f"Training images of {len(dicts)} files: read, resized to 640 to 800 pixels, flipped; with boxes and masks",
            {name: partial(map_all, mapper, dicts) for name, mapper in mappers.items()},
            pairs=pairs,
            items=len(dicts),
            compare_outputs=False,
            notes=(describe_difference(*mappers.values(), dicts),),
        )


def map_all(mapper: DatasetMapper, dicts: Sequence[dict[str, Any]]) -> None:
    np.random.seed(0)
    for entry in dicts:
        mapper(entry)


def describe_difference(theirs: DatasetMapper, ours: DatasetMapper, dicts: Sequence[dict[str, Any]]) -> str:
    """How far apart the two are with the same random draws."""
    means, largest, unequal = [], 0, 0
    for seed, entry in enumerate(dicts):
        np.random.seed(seed)
        expected = theirs(entry)
        np.random.seed(seed)
        found = ours(entry)
        off = (found["image"].int() - expected["image"].int()).abs()
        means.append(off.float().mean().item())
        largest = max(largest, int(off.max()))
        unequal += not _same_objects(found["instances"], expected["instances"])
    objects = "are equal in all images" if not unequal else f"DIFFER in {unequal} images"
    return f"Boxes and masks {objects}; pixels differ by {np.mean(means):.4f} of 255 on average, at most by {largest}."


def _same_objects(found: Instances, expected: Instances) -> bool:
    if len(found) != len(expected) or not torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor):
        return False
    return len(found) == 0 or all(
        len(a) == len(b) and all(map(np.array_equal, a, b))
        for a, b in zip(found.gt_masks.polygons, expected.gt_masks.polygons, strict=True)
    )


def compare_loading(path: Path, num_images: int, *, pairs: int, notes: Sequence[str] = ()) -> Comparison:
    """Load an annotation file, and serialise it for the workers; each time in a new process."""
    contenders = {"Detectron2": load_theirs, "resnet_det": load_ours}
    peaks = {name: run_in_child(partial(load, path))[1] for name, load in contenders.items()}
    memory = ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in peaks.items())
    return compare(
        f"An annotation file of {num_images:,} images loaded and serialised for the workers",
        {name: partial(run_in_child, partial(load, path)) for name, load in contenders.items()},
        pairs=pairs,
        warm_up=1,
        items=num_images,
        compare_outputs=False,
        notes=(f"The file has {path.stat().st_size / MIB:.0f} MiB. Memory at most while loading: {memory}.", *notes),
    )


def load_theirs(path: Path) -> None:
    DatasetFromList(load_coco_json_theirs(str(path), "images"), copy=False)


def load_ours(path: Path) -> None:
    with paused_garbage_collection():
        SerializedDicts(iter_coco_json(path, "images"))


def describe_sharing(path: Path, num_images: int, start_methods: Sequence[str] = START_METHODS) -> list[str]:
    """What the processes of a loader take together who read the first images of a file."""
    kinds = {"a list": list, "Detectron2": partial(DatasetFromList, copy=False), "resnet_det": SerializedDicts}

    def measure(kind: Callable[[list], Any], method: str, count: int) -> int:
        dicts = kind(list(itertools.islice(iter_coco_json(path, "images"), count)))
        return measure_shared_memory(dicts, num_workers=NUM_WORKERS, start_method=method)

    lines = [
        f"Memory of a process and its {NUM_WORKERS} workers who have read {num_images:,} images, beyond that without:"
    ]
    for method in start_methods:
        nothing, _ = run_in_child(partial(measure, list, method, NUM_WORKERS * NUM_PER_BATCH))
        sizes = {name: run_in_child(partial(measure, kind, method, num_images))[0] for name, kind in kinds.items()}
        found = [f"{name} {(size - nothing) / MIB:.0f} MiB" for name, size in sizes.items()]
        lines.append(f"  {method}ed: {', '.join(found)}")
    return lines


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and OpenCV compute in this thread."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
