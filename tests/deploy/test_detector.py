"""The runner: what it makes of the outputs of a network, and that it needs neither torch nor Detectron2."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pycocotools.mask
import pytest
import tifffile
from exported import METADATA

from resnet_det.deploy import Detector
from resnet_det.deploy.detector import make_batch
from resnet_det.deploy.runtimes import find_file
from resnet_det.errors import InputError


def fake_network(images, sizes):
    """One detection in the first image of a batch, of all of it, and two in the others."""
    count = np.array([1] + [2] * (len(images) - 1))
    whole = np.array([[0, 0, width, height] for height, width in sizes], np.float32)
    small = np.array([[0, 0, width / 2, height / 2] for height, width in sizes], np.float32)
    boxes = np.stack([whole, small, np.zeros_like(small)], 1)
    scores = np.array([[0.9, 0.8, 0.0]] * len(images), np.float32)
    scores[0, 1], boxes[0, 1] = 0, 0
    classes = np.array([[1, 0, 0]] * len(images))
    masks = np.ones((count.sum(), 28, 28), np.float32)
    return {"boxes": boxes, "scores": scores, "classes": classes, "count": count, "masks": masks}


@pytest.fixture
def detector(monkeypatch, tmp_path):
    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr("resnet_det.deploy.detector.load_network", lambda *_: (fake_network, METADATA))
    return Detector(tmp_path)


def test_detections_are_in_pixels_of_each_image(detector):
    images = [np.zeros((64, 96, 3), np.uint8), np.zeros((100, 40, 3), np.uint8)]
    first, second = detector(images)
    assert (len(first), len(second)) == (1, 2)
    assert first.boxes.tolist() == [[0, 0, 96, 64]]
    np.testing.assert_allclose(second.boxes, [[0, 0, 40, 100], [0, 0, 20, 50]], atol=1e-4)
    assert second.class_names == ["dog", "cat"]
    assert second.make_masks().shape == (2, 100, 40)
    assert second.make_masks().sum((1, 2)) == pytest.approx([40 * 100, 20 * 50], abs=30)
    assert len(detector(images[1])) == 1


def test_results_are_cocos(detector):
    (entry,) = detector(np.zeros((64, 96, 3), np.uint8)).to_coco(12)
    assert entry["image_id"] == 12
    assert entry["category_id"] == 7
    assert entry["bbox"] == [0, 0, 96, 64]
    assert pycocotools.mask.decode(entry["segmentation"]).sum() >= 64 * 96 - 4, "corners of masks are round"
    json.dumps(entry)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 in BGR order, and this is uint8 of shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), "this is float64"),
        (["a.jpg"], "this is str"),
        (np.zeros((0, 9, 3), np.uint8), r"nothing is left of an image of shape \(0, 9, 3\)"),
        (np.zeros((1, 5000, 3), np.uint8), "nothing is left"),
    ],
)
def test_what_is_no_image_is_told(detector, image, expected):
    with pytest.raises(InputError, match=expected):
        detector(image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "holds none of model.onnx, model.xml, model.pt2"), ("no.onnx", "no such file"), ("a.pth", r"ends in \.pth")],
)
def test_what_is_no_exported_detector_is_told(tmp_path, name, expected):
    (tmp_path / "a.pth").touch()
    with pytest.raises(InputError, match=expected):
        find_file(tmp_path / name)


def test_it_needs_neither_torch_nor_detectron2():
    code = """
import sys
sys.modules["torch"] = sys.modules["detectron2"] = None
import resnet_det.deploy
assert not {"torchvision", "PIL", "fvcore"} & set(sys.modules), sorted(sys.modules)
try:
    resnet_det.make_resnet
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "resnet_det.make_resnet needs Detectron2" in run.stdout


def test_files_are_read_as_the_detector_was_trained(monkeypatch, tmp_path):
    told = {"format": "CHANNELS", "channels": 2, "window": "fixed", "limits": [0, 510], "dtype": "float32", "shown": []}
    metadata = {**METADATA, "input_format": "CHANNELS", "image_input": told}
    monkeypatch.setattr("resnet_det.deploy.detector.find_file", lambda path: path)
    monkeypatch.setattr("resnet_det.deploy.detector.load_network", lambda *_: (None, metadata))
    detector = Detector("model.onnx")
    values = np.stack([np.full((6, 8), 255), np.full((6, 8), 1)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="separate")
    image = detector.read_image(tmp_path / "a.tif")
    assert (image.dtype, image.shape) == (np.float32, (6, 8, 2))
    assert image[0, 0].tolist() == [127.5, 0.5]
    batch, _ = make_batch([image], metadata)
    assert np.allclose(batch[0, :, 0, 0], [127.5, 0.5])
    with pytest.raises(InputError, match=r"an image is an array \(H, W, 2\) of float32, and this is uint8 of shape"):
        make_batch([np.zeros((6, 8, 3), np.uint8)], metadata)
    with pytest.raises(InputError, match=r"b.tif: no such file"):
        detector.read_image(tmp_path / "b.tif")
