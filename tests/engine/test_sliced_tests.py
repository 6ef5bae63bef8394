"""RESNET_DET.TEST.SLICE in evaluation and pictures, and what does not go with it."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from exported import METADATA
from models import NARROW, QUICK
from torch import nn

from resnet_det.config import check_cfg
from resnet_det.deploy.slicing import Slicing
from resnet_det.engine import build_train_parser, train_or_evaluate
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.predict.results import make_detections
from resnet_det.engine.predictor import to_cpu
from resnet_det.engine.slicing import SlicedPredictor, build_test_mapper, to_found
from resnet_det.engine.visualize import build_visualize_parser, setup_visualize_cfg, visualize
from resnet_det.errors import InputError
from resnet_det.evaluation.build import _LVISEvaluator
from resnet_det.images.image_input import ImageInput
from resnet_det.masks import BoxMasks, cut_out

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


@META_ARCH_REGISTRY.register()
class BrightThings(nn.Module):
    """Finds what is bright and hangs together, by red or green class 0 or 1, in images of up to 96 pixels alone."""

    def __init__(self, _):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.backbone = nn.Identity()

    def forward(self, batch):
        return [{"instances": self.find(image)} for image in batch]

    def find(self, inputs):
        pixels = inputs["image"].numpy()
        found = Instances((inputs["height"], inputs["width"]))
        masks, classes = [], []
        for class_id, channel in enumerate((2, 1)):  # BGR
            if max(pixels.shape) <= 96:
                count, labels = cv2.connectedComponents((pixels[channel] > 128).astype(np.uint8))
                masks += [labels == number for number in range(1, count)]
                classes += [class_id] * (count - 1)
        assert pixels.shape[1:] == found.image_size, "nothing is resized"
        masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *found.image_size))
        found.pred_masks, found.pred_classes = masks, torch.tensor(classes, dtype=torch.int64)
        boxes = [[*(mask.nonzero().amin(0).flip(0)), *(mask.nonzero().amax(0).flip(0) + 1)] for mask in masks]
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores = 1 - 1 / (2 + masks.sum((1, 2)).float())
        return found


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A data set of a large image with four objects, and a small one with one."""
    sizes, objects = [(230, 310), (50, 60)], [(1, 1, (60, 20, 100, 50)), (1, 2, (150, 140, 190, 170))]
    objects += [(1, 1, (0, 100, 250, 115)), (1, 2, (300, 220, 310, 230)), (2, 1, (10, 10, 30, 40))]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    annotations = []
    for image_id, category, (x0, y0, x1, y1) in objects:
        images[image_id - 1][y0:y1, x0:x1, 3 - category] = 255
        annotations.append({
            "id": len(annotations) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0,
            "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        })  # fmt: skip
    (tmp_path / "images").mkdir()
    entries = []
    for number, image in enumerate(images, 1):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
        height, width = image.shape[:2]
        entries.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    content = {"images": entries, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    (tmp_path / "large.json").write_text(json.dumps(content))
    for module in ("run", "predictor"):
        monkeypatch.setattr(f"resnet_det.engine.{module}.load_trained_weights", lambda *_: None)
    (tmp_path / "bright.pth").touch()
    opts = ["MODEL.META_ARCHITECTURE", "BrightThings", "MODEL.WEIGHTS", tmp_path / "bright.pth"]
    opts += ["MODEL.ROI_HEADS.NUM_CLASSES", 2, "INPUT.MIN_SIZE_TEST", 0, "MODEL.DEVICE", "cpu"]
    opts += ["RESNET_DET.TEST.REPORT", False, "DATALOADER.NUM_WORKERS", 0]
    return tmp_path / "large.json", tmp_path / "images", opts


@pytest.mark.parametrize(("size", "batch_size"), [(64, 1), (96, 5)])
@pytest.mark.parametrize("mapper", ["detectron2", "fast"])
def test_objects_of_large_images_are_evaluated_whole(large, tmp_path, monkeypatch, request, size, batch_size, mapper):
    monkeypatch.chdir(request.config.rootpath)
    file, images, opts = large
    opts += ["RESNET_DET.TEST.SLICE", size, "RESNET_DET.TEST.BATCH_SIZE", batch_size, "RESNET_DET.DATA.MAPPER", mapper]
    args = ["--eval-only", "--config-file", DEMO, "--test-data", file, images, "OUTPUT_DIR", tmp_path / "out", *opts]
    results = train_or_evaluate(build_train_parser().parse_args(list(map(str, args))))
    for task in ("bbox", "segm"):
        assert (results[task]["AP"], results[task]["AR10000"]) == (100, 100)
    rows = json.loads((tmp_path / "out" / "inference" / "coco_instances_results.json").read_text())
    assert len(rows) == 5, "each once"


def test_pictures_of_large_images(large, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    file, images, opts = large
    args = ["--config-file", DEMO, "--input", images, "--output", tmp_path / "drawn", "--slice", 64, "--overlap", 0.3]
    opts += ["RESNET_DET.DATA.COCO", [["large_set", str(file), str(images)]], "DATASETS.TEST", "('large_set',)"]
    args += ["--opts", *opts]
    parsed = build_visualize_parser().parse_args(list(map(str, args)))
    summary = visualize(parsed, setup_visualize_cfg(parsed))
    assert summary.num_images == 2
    rows = json.loads((tmp_path / "drawn" / "coco_instances_results.json").read_text())
    expected = [annotation["bbox"] for annotation in json.loads(file.read_text())["annotations"]]
    assert sorted(row["bbox"] for row in rows) == sorted(expected)
    assert "4 detections" not in (tmp_path / "drawn" / "gallery.html").read_text()


def test_results_are_the_same_where_no_image_is_larger(make_args, default_cfg, tmp_path):
    default_cfg.merge_from_file(DEMO)
    default_cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 6, *QUICK, *NARROW])
    torch.save({"model": build_model(default_cfg).state_dict()}, tmp_path / "weights.pth")
    rows = []
    for size in (0, 256):
        opts = ["RESNET_DET.TEST.SLICE", size, "MODEL.WEIGHTS", tmp_path / "weights.pth"]
        opts += ["TEST.DETECTIONS_PER_IMAGE", 30, "RESNET_DET.TEST.MAX_IMAGES", 2]
        train_or_evaluate(build_train_parser().parse_args(["--eval-only", *make_args(*opts, out=f"out{size}")]))
        rows.append((tmp_path / f"out{size}" / "inference" / "coco_instances_results.json").read_text())
    assert rows[0] == rows[1]
    assert len(json.loads(rows[0])) > 20


def test_workers_take_the_mapper(default_cfg, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 90, 3), 7, np.uint8))
    default_cfg.RESNET_DET.TEST.SLICE = 64
    mapper = pickle.loads(pickle.dumps(build_test_mapper(default_cfg)))
    for size in ({}, {"height": 40, "width": 90}):
        assert mapper({"file_name": str(tmp_path / "a.png"), **size})["image"].shape == (3, 40, 90)


class FakePredictor:
    class_names, category_ids, stuff_names, skeleton = ["cat"], [1], (), None
    image_input = ImageInput()

    def run(self, images):
        return [image.shape for image in images]


def test_images_no_larger_than_a_slice_go_through_as_without():
    shapes = [(64, 10, 3), (64, 64, 3), (1, 1, 3)]
    images = [np.zeros(shape, np.uint8) for shape in shapes]
    assert SlicedPredictor(FakePredictor(), Slicing(64)).run(images) == shapes


def test_exported_detectors_take_slices(monkeypatch, tmp_path):
    """The network finds one object, the whole of what it sees."""

    def network(images, sizes):
        boxes = np.array([[[0, 0, width, height]] for height, width in sizes], np.float32)
        count = np.ones(len(images), int)
        found = {"boxes": boxes, "scores": np.full((len(images), 1), 0.9, np.float32), "count": count}
        return {**found, "classes": np.ones((len(images), 1), int), "masks": np.ones((len(images), 28, 28), np.float32)}

    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr("resnet_det.deploy.detector.load_network", lambda *_: (network, METADATA))
    predictor = SlicedPredictor(ExportedPredictor(tmp_path), Slicing(64, takes_whole=False))
    (output,) = predictor.run([np.zeros((150, 200, 3), np.uint8)])
    found = output["instances"]
    assert found.image_size == (150, 200)
    np.testing.assert_allclose(found.pred_boxes.tensor, [[0, 0, 200, 150]], atol=1e-4)
    (mask,) = found.pred_masks
    assert mask.paste(150, 200).mean() > 0.99
    assert found.pred_classes.tolist() == [1]


def test_lvis_takes_masks_in_their_boxes():
    found = Instances((6, 8))
    found.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 4.0, 5.0]]))
    found.scores, found.pred_classes = torch.tensor([0.5]), torch.tensor([3])
    whole = np.zeros((6, 8), bool)
    whole[2:5, 1:4] = True
    expected = instances_to_coco_json(Instances((6, 8), **found.get_fields(), pred_masks=torch.tensor(whole[None])), 9)
    found.pred_masks = BoxMasks([cut_out(whole)], 6, 8)
    evaluator = _LVISEvaluator.__new__(_LVISEvaluator)
    evaluator._predictions = []
    evaluator.process([{"image_id": 9}], [{"instances": found}])
    assert evaluator._predictions == [{"image_id": 9, "instances": expected}]


def test_halves_are_taken_as_float32():
    found = Instances((6, 8))
    found.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 4.0, 5.0]]))
    found.scores, found.pred_classes = torch.tensor([0.5]).bfloat16(), torch.tensor([3])
    found.pred_keypoints = torch.tensor([[[1.0, 2.0, 0.5]]]).bfloat16()
    taken = to_found(found)
    assert (taken.scores.dtype, taken.keypoints.dtype, taken.classes.dtype) == (np.float32, np.float32, np.int64)
    assert taken.keypoints.tolist() == [[[1.0, 2.0, 0.5]]]
    assert make_detections(to_cpu(found), ("a",) * 4, range(4), 0.1)[0]["keypoints"] == [0.5, 1.5, 0.5]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "MODEL.META_ARCHITECTURE PanopticFPN"),
        (["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.LOAD_PROPOSALS", True], "PanopticFPN and MODEL.LOAD_PROP"),
        (["TEST.AUG.ENABLED", True], "TEST.AUG.ENABLED"),
        (["INPUT.FORMAT", "YUV-BT.601"], "INPUT.FORMAT YUV-BT.601"),
    ],
)
def test_what_does_not_go_with_slices_is_told(default_cfg, opts, message):
    default_cfg.merge_from_list(opts)
    assert not any("SLICE" in problem for problem in check_cfg(default_cfg))
    default_cfg.RESNET_DET.TEST.SLICE = 640
    (problem,) = [problem for problem in check_cfg(default_cfg) if "SLICE" in problem]
    assert message in problem


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dataset", "x", "--slice", "64"], "--slice goes with --input, --video-input and --webcam"),
        (["--input", "x", "--features", "--slice", "64"], "--slice goes with .*, and not with --features"),
        (["--input", "x", "--overlap", "0.1"], "--overlap goes with --slice"),
        (["--input", "x", "--slice", "-1"], "RESNET_DET.TEST.SLICE is -1"),
        (["--input", "x", "--slice", "8"], "RESNET_DET.TEST.SLICE is 8; 0 or at least 32"),
        (["--input", "x", "--slice", "64", "--overlap", "1"], "RESNET_DET.TEST.SLICE_OVERLAP is 1"),
    ],
)
def test_flags_that_make_no_sense(args, message):
    with pytest.raises(InputError, match=message):
        setup_visualize_cfg(build_visualize_parser().parse_args([*args, "--output", "out"]))
