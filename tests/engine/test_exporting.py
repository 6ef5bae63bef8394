"""Detectors of configs, exported and compared with the model; whole exports take minutes, and are long."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model
from models import (
    CONFIGS,
    NARROW,
    QUICK,
    find_distinct_configs,
    randomise_norms_,
    read_config,
    with_our_backbone,
    zoo_cfg,
)

from resnet_det.data import register_coco
from resnet_det.deploy import Detector
from resnet_det.deploy.modules import make_exportable
from resnet_det.engine.export_check import Differences, ExportError, compare_entries
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.exporting import describe_model, export_model, find_images
from resnet_det.engine.predictor import Predictor
from resnet_det.errors import InputError

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
DEFORMABLE = "Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml"
EXPORTABLE = [
    CONFIGS / name
    for name in find_distinct_configs()
    if read_config(CONFIGS / name).MODEL.META_ARCHITECTURE != "PanopticFPN"
]


def prepare_cfg(cfg, folder, *opts):
    """``cfg`` for small images, with weights in a file: random ones, whose scores are spread."""
    cfg.merge_from_list([*QUICK, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 128])
    cfg.merge_from_list(["MODEL.RPN.POST_NMS_TOPK_TEST", 50, "TEST.DETECTIONS_PER_IMAGE", 200])
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.RETINANET.NUM_CLASSES", 3])
    cfg.merge_from_list(["DATASETS.TRAIN", (), "DATASETS.TEST", (), *opts])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    randomise_norms_(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "cls_score.weight" in key:
                parameter.mul_(0.3 if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else 20)
    cfg.MODEL.WEIGHTS = str(folder / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


@pytest.fixture
def make_cfg(tmp_path):
    """A config of the zoo with a narrow net and random weights."""

    def make(name, *opts):
        cfg = with_our_backbone(zoo_cfg(name))
        cfg.merge_from_list([*NARROW, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16,)])
        cfg.MODEL.RETINANET.NUM_CONVS = 1
        return prepare_cfg(cfg, tmp_path, *opts)

    return make


def check_exported(cfg, folder, at_least):
    """Export to all formats; three images of three sizes are compared there, as a batch and one by one."""
    compared = export_model(cfg, folder, formats=["onnx", "openvino", "torch"])
    assert [path.name for path in compared] == ["model.onnx", "model.xml", "model.pt2"]
    assert {path.name for path in folder.iterdir()} == {*(path.name for path in compared), "model.bin"}
    for path, differences in compared.items():
        print(folder.parent.name, path.name, differences)
        assert differences.num_images == 3
        assert differences.num_found == differences.num_detections >= at_least
        assert len(Detector(path)([np.zeros((64, 64, 3), np.uint8)] * 2)) == 2


@pytest.mark.long
@pytest.mark.parametrize("path", EXPORTABLE, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_is_exported(path, tmp_path):
    check_exported(prepare_cfg(read_config(path), tmp_path), tmp_path / "out", at_least=10)


@pytest.mark.long
def test_deformable_convolutions_are_exported(make_cfg, tmp_path):
    check_exported(make_cfg(DEFORMABLE), tmp_path / "out", at_least=10)


@pytest.mark.long
def test_one_detection(make_cfg, tmp_path):
    cfg = make_cfg(MASK_RCNN, "TEST.DETECTIONS_PER_IMAGE", 1)
    for path in export_model(cfg, tmp_path / "out", formats=["onnx", "openvino"]):
        images = [np.random.randint(0, 256, (*shape, 3), np.uint8) for shape in ((96, 128), (128, 96), (64, 64))]
        for found in [*Detector(path)(images), Detector(path)(images[0])]:
            assert len(found) == 1
            assert found.make_masks().shape == (1, found.height, found.width)


@pytest.mark.long
def test_no_detections_at_all(make_cfg, tmp_path):
    cfg = make_cfg(MASK_RCNN, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    for path in export_model(cfg, tmp_path / "out", formats=["onnx", "openvino"]):
        found = Detector(path)(np.zeros((64, 80, 3), np.uint8))
        assert len(found) == 0
        assert found.make_masks().shape == (0, 64, 80)
        assert found.to_coco(1) == []


def test_what_the_file_says_of_the_detector(make_cfg):
    cfg = make_cfg(MASK_RCNN, "MODEL.ROI_HEADS.NUM_CLASSES", 2, "RESNET_DET.CLASSES.NAMES", ["cat", "dog"])
    cfg.RESNET_DET.CLASSES.IDS = [3, 7]
    module = type("Module", (), {"output_names": ("boxes", "masks")})
    metadata = describe_model(cfg, Predictor(cfg), module)
    assert (metadata["class_names"], metadata["category_ids"]) == (["cat", "dog"], [3, 7])
    assert (metadata["min_size"], metadata["max_size"], metadata["input_format"]) == (96, 128, "BGR")
    assert metadata["score_threshold"] == 0.05
    assert metadata["weights"] == "weights.pth"
    assert len(metadata["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "PanopticFPN has no form that exporters take"),
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty: which weights"),
    ],
)
def test_what_cannot_be_exported_is_one_error(make_cfg, tmp_path, opts, message):
    cfg = make_cfg(MASK_RCNN, *opts[:2] if "META" in opts[0] else ())
    cfg.merge_from_list(opts)
    with pytest.raises(InputError, match=message):
        export_model(cfg, tmp_path / "out", formats=["onnx"])
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_overwritten(make_cfg, tmp_path):
    (tmp_path / "model.bin").write_text("somebody's")
    with pytest.raises(InputError, match=r"model.bin is there already"):
        export_model(make_cfg(MASK_RCNN), tmp_path, formats=["openvino"])
    assert (tmp_path / "model.bin").read_text() == "somebody's"


def test_int8_needs_images(make_cfg, tmp_path):
    with pytest.raises(InputError, match=r"int8 takes its ranges from images: name a data set with --calibration"):
        export_model(make_cfg(MASK_RCNN), tmp_path, formats=["onnx"], precision="int8")
    with pytest.raises(InputError, match=r"no data set 'cocco'; known are"):
        export_model(make_cfg(MASK_RCNN), tmp_path, formats=["onnx"], precision="int8", calibration="cocco")


def test_images_are_from_all_over_the_first_set_that_is_here(small_data, tmp_path):
    # Like COCO where it is not here: Detectron2 knows its classes all the same.
    register_coco_instances(
        "export_gone", {"thing_classes": ["cat"]}, str(tmp_path / "gone.json"), str(tmp_path / "gone")
    )
    register_coco("export_val", *small_data["val"])
    try:
        images = find_images(["export_gone", "export_val"], 2)
        assert find_images(["export_gone"], 2) == []
    finally:
        for name in ("export_gone", "export_val"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    files = sorted(Path(small_data["val"][1]).iterdir())
    assert len(files) == 4
    for image, file in zip(images, files[::2], strict=True):
        assert np.array_equal(image, cv2.imread(str(file)))


def entry(x, score, category=1, **more):
    return {"bbox": [x, 10, 20, 20], "score": score, "category_id": category, **more}


def compare(model, file, limit=100):
    return compare_entries(model, file, limit=limit, score_threshold=0.05)


def test_the_same_detections_are_found_whatever_their_order():
    model = [entry(0, 0.9), entry(50, 0.8), entry(50, 0.7, category=2)]
    file = [entry(50, 0.7, category=2), entry(50.01, 0.8), entry(0, 0.9002)]
    found = compare([model, model], [file, file])
    assert (found.num_images, found.num_detections, found.num_found, found.num_extra) == (1, 6, 6, 0)
    assert found.box_px == pytest.approx(0.01)
    assert found.score == pytest.approx(2e-4)
    found.require_equal("model.onnx")


@pytest.mark.parametrize(
    "file",
    [
        [entry(0, 0.9)],
        [entry(0, 0.9), entry(50, 0.8, category=2)],
        [entry(0, 0.9), entry(80, 0.8)],
        [entry(0, 0.9), entry(50.5, 0.8)],
        [entry(0, 0.9), entry(50, 0.75)],
        [entry(0, 0.9), entry(0, 0.8)],
        [entry(0, 0.9), entry(50, 0.8), entry(80, 0.3)],
    ],
    ids=["missing", "class", "place", "box", "score", "twice", "extra"],
)
def test_what_differs_is_not_kept(file):
    found = compare([[entry(0, 0.9), entry(50, 0.8)]] * 2, [file] * 2)
    with pytest.raises(ExportError, match=r"model.onnx does not compute what the model computes, and is not kept: "):
        found.require_equal("model.onnx")


def test_what_the_limit_cuts_off_may_differ():
    model = [entry(0, 0.9), entry(50, 0.5)]
    compare([model] * 2, [[entry(0, 0.9), entry(99, 0.5)]] * 2, limit=2).require_equal("model.onnx")


def test_what_is_near_the_score_threshold_may_differ():
    compare([[entry(0, 0.9), entry(50, 0.055)]] * 2, [[entry(0, 0.9), entry(80, 0.052)]] * 2).require_equal(
        "model.onnx"
    )


def test_other_masks_and_keypoints_are_not_kept():
    mask = np.zeros((64, 64), np.uint8, order="F")
    mask[10:30, :20] = 1
    whole, half = (pycocotools.mask.encode(part) for part in (mask, np.asfortranarray(np.triu(mask))))
    same = [[entry(0, 0.9, segmentation=whole, keypoints=[5, 5, 1] * 3)]] * 2
    found = compare(same, same)
    assert (found.mask_iou, found.keypoint_px) == (1, 0)
    found.require_equal("model.onnx")
    for other in ({"segmentation": half}, {"keypoints": [9, 5, 1] * 3}):
        with pytest.raises(ExportError):
            compare(same, [[{**same[0][0], **other}]] * 2).require_equal("model.onnx")


def test_differences_are_one_line():
    assert str(Differences(4, 20, 19, 1, 0.00123, 4e-6, 0.99, 0.5)) == (
        "19 of the model's 20 detections on 4 images, in a batch and one by one, and 1 others; boxes within 0.0012 px, "
        "scores within 4e-06, mean IoU of masks 0.9900, keypoints 0.5 px apart (median)"
    )
    assert "nothing was compared" in str(Differences(4, 0, 0, 0, 0.0, 0.0))


def test_a_format_of_images_that_files_do_not_take_is_told_first(make_cfg, tmp_path):
    cfg = make_cfg(MASK_RCNN)
    cfg.INPUT.FORMAT = "YUV-BT.601"
    with pytest.raises(InputError, match=r"INPUT.FORMAT YUV-BT.601: exported files take images in BGR, RGB, L"):
        export_model(cfg, tmp_path, formats=["onnx"])


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_file_is_kept_if_it_is_equal(make_cfg, tmp_path, monkeypatch, run_tool_here, is_equal):
    """Without the minutes of a real export: what is written is text, and what is compared is given."""
    cfg = make_cfg(MASK_RCNN)
    (tmp_path / "config.yaml").write_text(cfg.dump())

    def write_files(_, __, folder, formats, *___):
        for kind in formats:
            (folder / f"model.{kind}").write_text("a network")
            yield kind, folder / f"model.{kind}"

    differences = Differences(3, 20, 20 if is_equal else 3, 0, 1e-5, 1e-6)
    monkeypatch.setattr("resnet_det.engine.exporting.trace", lambda *_: None)
    monkeypatch.setattr("resnet_det.engine.exporting.write_onnx", lambda *_: None)
    monkeypatch.setattr("resnet_det.engine.exporting.write_files", write_files)
    monkeypatch.setattr("resnet_det.engine.exporting.compare_with_model", lambda *_: differences)
    run = run_tool_here("export_model.py", "--config-file", tmp_path / "config.yaml", "--output", tmp_path / "out")
    assert run.returncode == (0 if is_equal else 1), run.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"] * is_equal
    if is_equal:
        assert f"{tmp_path / 'out' / 'model.onnx'} (float32): 20 of the model's 20 detections" in run.stdout
    else:
        assert "export_model: model.onnx does not compute what the model computes, and is not kept" in run.stderr


@pytest.fixture
def exported(make_cfg, monkeypatch):
    """A predictor of a file, whose network is the model itself."""
    cfg = make_cfg("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", "MODEL.MASK_ON", True)
    predictor = Predictor(cfg)
    module = make_exportable(predictor.model)
    metadata = describe_model(cfg, predictor, module)

    def network(images, sizes):
        with torch.no_grad():
            found = module(torch.from_numpy(images), torch.from_numpy(sizes))
        return {name: values.numpy() for name, values in zip(module.output_names, found, strict=True)}

    monkeypatch.setattr("resnet_det.deploy.detector.find_file", lambda path: path)
    monkeypatch.setattr("resnet_det.deploy.detector.load_network", lambda *_: (network, metadata))
    return predictor, ExportedPredictor("model.onnx")


def test_an_exported_detector_stands_in_for_a_predictor(exported):
    predictor, other = exported
    images = [cv2.resize(np.random.randint(0, 256, (9, 12, 3), dtype=np.uint8), (150, 110)) for _ in range(2)]
    for expected, found in zip(predictor.run(images), other.run(images), strict=True):
        expected, found = expected["instances"], found["instances"]
        assert len(expected) == len(found) > 0
        assert found.image_size == (110, 150)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-2, rtol=0)
        masks = np.array([mask.paste(110, 150) for mask in found.pred_masks])
        assert (masks == expected.pred_masks.numpy()).mean() > 0.999
        distance = (found.pred_keypoints - expected.pred_keypoints)[..., :2].norm(dim=-1)
        assert distance.median() < 1.5
    assert other.skeleton == predictor.skeleton
    assert other.class_names == predictor.class_names
