"""A small untrained detector, and the way tools/visualize.py is called."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from models import write_random_weights

from resnet_det.engine.visualize import build_visualize_parser, setup_visualize_cfg, visualize

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


@pytest.fixture
def run(small_data, tmp_path, monkeypatch, request):
    """Call it with the demo's config at 96 pixels and the data set "vis_val" of four images.

    The pictures go to "drawn", and those of a second call to "drawn-2".
    """
    monkeypatch.chdir(request.config.rootpath)

    folders = itertools.chain(["drawn"], (f"drawn-{number}" for number in itertools.count(2)))

    def call(*args, opts=(), output="new"):
        output = next(folders) if output == "new" else output
        fixed = ["--config-file", DEMO, *args, *(["--output", tmp_path / output] if output else [])]
        fixed += ["--opts", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", tmp_path, "INPUT.MIN_SIZE_TEST", "96"]
        fixed += ["TEST.DETECTIONS_PER_IMAGE", "10"]
        data = [["vis_val", *small_data["val"]]]
        fixed += ["RESNET_DET.DATA.COCO", data, "DATASETS.TRAIN", "()", "DATASETS.TEST", "('vis_val',)", *opts]
        parsed = build_visualize_parser().parse_args(list(map(str, fixed)))
        return visualize(parsed, setup_visualize_cfg(parsed))

    yield call
    if "vis_val" in DatasetCatalog:
        DatasetCatalog.remove("vis_val")
        MetadataCatalog.remove("vis_val")


@pytest.fixture(scope="session")
def weights(tmp_path_factory, request):
    """KEY VALUE for MODEL.WEIGHTS of the demo's detector, random but for scores that differ."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    write_random_weights(request.config.rootpath / DEMO, ["MODEL.DEVICE", "cpu"], path)
    return ["MODEL.WEIGHTS", path]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "deeper/c.bmp"):
        cv2.imwrite(str(folder / name), np.random.randint(0, 255, (70, 90, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def clip(tmp_path):
    """A video of 5 seconds, 10 frames each, in which a square moves."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (90, 70))
    for number in range(50):
        frame = np.full((70, 90, 3), 60, dtype=np.uint8)
        frame[20:40, number : number + 20] = (30, 200, 240)
        writer.write(frame)
    writer.release()
    return path
