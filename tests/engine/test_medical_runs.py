"""Detectors of 16-bit stacks, DICOM series and images of four channels: trained, evaluated, run, looked at."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import tifffile
import torch
from medical import HEIGHT, WIDTH, write_annotations, write_channels, write_series, write_stack
from models import NARROW, QUICK, write_random_weights

from resnet_det.config import check_cfg, read_image_input
from resnet_det.data import build_mapper
from resnet_det.data.coco.problems import count_errors
from resnet_det.data.inspection.sets import inspect_sets
from resnet_det.data.mapping.fast_image import read_bgr, read_taken
from resnet_det.deploy.detector import make_batch
from resnet_det.engine import setup_model_cfg
from resnet_det.engine.predictor import Predictor
from resnet_det.errors import InputError
from resnet_det.images import settings
from resnet_det.images.pages import list_pages

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"
SMALL = [*NARROW, *QUICK, "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.DEVICE", "cpu"]
SMALL += ["INPUT.MIN_SIZE_TEST", "72", "INPUT.MAX_SIZE_TEST", "96", "MODEL.MASK_ON", "False"]
TRAIN = ["INPUT.MIN_SIZE_TRAIN", "(72,)", "INPUT.MAX_SIZE_TRAIN", "96", "SOLVER.MAX_ITER", "2"]
TRAIN += ["DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.AMP.ENABLED", "False"]
TRAIN += ["MODEL.RESNET_DET.CHECK_WEIGHTS", "False"]
GREY = ["INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[30.0]", "MODEL.PIXEL_STD", "[60.0]"]
FOUR = ["INPUT.FORMAT", "CHANNELS", "MODEL.PIXEL_MEAN", "[30.0, 30.0, 30.0, 30.0]"]
FOUR += ["MODEL.PIXEL_STD", "[60.0, 60.0, 60.0, 60.0]", "RESNET_DET.DATA.MAPPER", "fast"]
KINDS = {
    "stack": (write_stack, [*GREY, "RESNET_DET.INPUT.WINDOW", "type", "RESNET_DET.INPUT.DTYPE", "float32"], 1),
    "series": (
        write_series,
        [*GREY, "RESNET_DET.INPUT.WINDOW", "fixed", "RESNET_DET.INPUT.LIMITS", "[-1024, 1100]"],
        1,
    ),
    "channels": (write_channels, [*FOUR, "RESNET_DET.INPUT.SHOWN", "[3, 1, 0]"], 4),
}


@pytest.fixture
def images(tmp_path, monkeypatch, request):
    """For a kind: its folder, annotation file, the names of the images, and the keys."""
    monkeypatch.chdir(request.config.rootpath)

    def make(kind):
        write, opts, _ = KINDS[kind]
        folder = tmp_path / kind
        folder.mkdir()
        names, boxes = write(folder)
        return folder, write_annotations(tmp_path / f"{kind}.json", names, boxes), names, boxes, opts

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_start_to_pictures(kind, images, run_tool_here, tmp_path):
    folder, annotations, names, _, opts = images(kind)
    weights = write_random_weights(DEMO, SMALL, tmp_path / "rgb.pth")
    run = run_tool_here(
        *["train_net.py", "--config-file", DEMO, "--train-data", annotations, folder],
        *["--test-data", annotations, folder, *SMALL, *TRAIN, *opts],
        *["MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "out", "RESNET_DET.TEST.REPORT", "True"],
    )
    assert run.returncode == 0, run.stderr
    log = (tmp_path / "out" / "log.txt").read_text()
    assert f"stem: 3 input channels were adapted to {KINDS[kind][2]}" in log
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "bbox" in json.dumps(results)
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()
    final = tmp_path / "out" / "model_final.pth"
    stem = torch.load(final, weights_only=True)["model"]["backbone.bottom_up.stem.conv1.weight"]
    assert stem.shape[1] == KINDS[kind][2]

    detector = ["--config-file", tmp_path / "out" / "config.yaml", "--confidence-threshold", 0]
    chosen = ["--opts", "MODEL.WEIGHTS", final]
    run = run_tool_here("predict.py", folder, *detector, "--output", tmp_path / "found", "--num-workers", 1, *chosen)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in (tmp_path / "found" / "results" / "000000.jsonl").open()]
    assert [row["file_name"] for row in rows] == [str(folder / name) for name in names]
    assert all(row["error"] is None and (row["height"], row["width"]) == (HEIGHT, WIDTH) for row in rows)
    run = run_tool_here("evaluate.py", "--annotations", annotations, "--results", tmp_path / "found")
    assert run.returncode == 0, run.stderr

    run = run_tool_here("visualize.py", "--input", folder, *detector, "--output", tmp_path / "drawn", *chosen)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3
    run = run_tool_here(
        *["visualize.py", *detector, "--results", tmp_path / "drawn" / "coco_instances_results.json"],
        *["--annotations", annotations, "--images", folder, "--output", tmp_path / "beside"],
    )
    assert run.returncode == 0, run.stderr
    picture = cv2.imread(str(min((tmp_path / "beside").glob("*.png"))))
    assert picture is not None
    assert picture.std() > 20


@pytest.mark.parametrize("mapper", ["detectron2", "fast"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_prediction_pictures_and_checks_read_alike(kind, mapper, images):
    folder, annotations, names, boxes, opts = images(kind)
    cfg = setup_model_cfg(DEMO, [*SMALL, *opts, "RESNET_DET.DATA.MAPPER", mapper])
    settings.set_image_input(read_image_input(cfg))
    (inspected,) = inspect_sets([(annotations, folder)])
    assert count_errors(inspected.problems) == 0
    for name, (x, y, width, height) in zip(names, boxes, strict=True):
        path = str(folder / name)
        entry = {"file_name": path, "height": HEIGHT, "width": WIDTH, "image_id": 1}
        mapped = build_mapper(cfg, False)(entry)["image"]
        taken, picture = read_taken(path), read_bgr(path)
        assert mapped.shape[1:] == (72, 96)
        if kind == "channels":
            assert taken.shape == (HEIGHT, WIDTH, 4)
            assert np.array_equal(picture, taken[:, :, [0, 1, 3]]), "blue, green, red"
        else:
            assert np.array_equal(picture, np.rint(taken).astype(np.uint8))
        assert taken.dtype == (np.float32 if kind == "stack" else np.uint8)
        inside = picture[y : y + height, x : x + width].mean()
        assert inside > 100
        assert inside > 3 * picture[: max(y, 1), : max(x, 1)].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_gets_the_pixels_that_training_has(kind, images, tmp_path):
    folder, _, names, _, opts = images(kind)
    weights = write_random_weights(DEMO, [*SMALL, *opts], tmp_path / "weights.pth")
    cfg = setup_model_cfg(DEMO, [*SMALL, *opts, "MODEL.WEIGHTS", str(weights), "RESNET_DET.DATA.MAPPER", "detectron2"])
    predictor = Predictor(cfg)
    settings.set_image_input(predictor.image_input)
    path = str(folder / names[0])
    entry = {"file_name": path, "height": HEIGHT, "width": WIDTH, "image_id": 1}
    taken, prepared = read_taken(path), build_mapper(cfg, False)(entry)["image"].float().numpy()
    assert np.allclose(predictor.prepare(taken)["image"].float().numpy(), prepared, rtol=0, atol=1e-4)
    told = {"input_format": cfg.INPUT.FORMAT, "image_input": predictor.image_input.to_metadata()}
    told |= {"min_size": 72, "max_size": 96}
    batch, _ = make_batch([taken], json.loads(json.dumps(told)))
    tolerance = 1 if kind == "channels" else 0.01  # torch and our own resizing round apart
    assert np.abs(batch[0] - prepared).max() <= tolerance, "an exported detector"
    assert len(predictor.predict([read_taken(path), predictor.image_input.make_blank(30, 40)])) == 2
    with pytest.raises(InputError, match=r"an image is an array \(H, W, "):
        predictor.prepare(np.zeros((30, 40, 5), np.uint8))


def test_weights_of_another_number_of_channels_are_for_training_alone(images, tmp_path):
    *_, opts = images("channels")
    weights = write_random_weights(DEMO, SMALL, tmp_path / "rgb.pth")
    with pytest.raises(InputError, match=r"stem.conv1.weight is 32x3x7x7 in the file, 32x4x7x7 in the model"):
        Predictor(setup_model_cfg(DEMO, [*SMALL, *opts, "MODEL.WEIGHTS", str(weights)]))


def test_a_page_that_is_not_there_stops_a_run_before_it_begins(images, run_tool_here, tmp_path):
    folder, _, names, boxes, opts = images("stack")
    annotations = write_annotations(tmp_path / "wrong.json", [*names[:2], "stack.tif#7"], boxes)
    run = run_tool_here(
        *["train_net.py", "--config-file", DEMO, "--train-data", annotations, folder, *SMALL, *TRAIN, *opts],
        *["OUTPUT_DIR", tmp_path / "out"],
    )
    assert run.returncode == 2
    assert (
        "1 images are pages that their files do not have (such as stack.tif#7: 3 pages, counted from 0)" in run.stderr
    )
    (inspected,) = inspect_sets([(annotations, folder)])
    (problem,) = [one for one in inspected.problems if one.kind == "unreadable-image"]
    assert problem.message == "no page 7: the file has 3, counted from 0"


def test_a_damaged_stack_is_a_bad_image_of_a_prediction(images, run_tool_here, tmp_path):
    folder, _, _, _, opts = images("stack")
    (folder / "cut.tif").write_bytes((folder / "stack.tif").read_bytes()[:9])
    weights = write_random_weights(DEMO, [*SMALL, *opts], tmp_path / "weights.pth")
    flags = ["--config-file", DEMO, "--output", tmp_path / "found", "--opts", *SMALL, *opts]
    flags += ["MODEL.WEIGHTS", weights, "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    run = run_tool_here("predict.py", folder / "stack.tif#1", folder / "cut.tif", *flags)
    assert run.returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "found" / "results" / "000000.jsonl").open()]
    assert [(row["file_name"], row["error"] is None) for row in rows] == [
        (str(folder / "stack.tif#1"), True),
        (str(folder / "cut.tif"), False),
    ]
    assert "not a readable TIFF file" in rows[1]["error"]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["RESNET_DET.INPUT.WINDOW", "hounsfield"], "WINDOW is 'hounsfield'; choose one of auto, type, minmax, perc"),
        (["RESNET_DET.INPUT.WINDOW", "fixed"], r"LIMITS is \[\]; .*such as \[-160, 240\]"),
        (["RESNET_DET.INPUT.WINDOW", "percentiles", "RESNET_DET.INPUT.LIMITS", [1, 101]], "two percentages"),
        (["RESNET_DET.INPUT.LIMITS", [0, 1]], "is for WINDOW fixed and percentiles"),
        (["RESNET_DET.INPUT.DTYPE", "uint16"], "DTYPE is 'uint16'; choose one of uint8, float32"),
        (["RESNET_DET.INPUT.DTYPE", "float32", "INPUT.FORMAT", "HSV"], "DTYPE float32 goes with INPUT.FORMAT"),
        (["RESNET_DET.INPUT.DTYPE", "float32", "RESNET_DET.DATA.PHOTOMETRIC.PROB", 0.5], "DTYPE uint8"),
        (["RESNET_DET.INPUT.SHOWN", [0, 1, 3]], "three channels from 0 to 2 would be right"),
        (["INPUT.FORMAT", "CHANNELS", "VIS_PERIOD", 20], "VIS_PERIOD is 20; Detectron2 cannot show"),
        (["INPUT.FORMAT", "CHANNELS", "TEST.AUG.ENABLED", True], "set it to False for INPUT.FORMAT CHANNELS"),
        (["MODEL.PIXEL_MEAN", [1.0] * 4, "MODEL.PIXEL_STD", [1.0] * 4], "CHANNELS takes files of any number"),
    ],
)
def test_wrong_keys_are_told(default_cfg, opts, message):
    default_cfg.merge_from_list(opts)
    assert any(re.search(message, problem) for problem in check_cfg(default_cfg))


def test_masks_of_a_stack_become_objects_of_its_pages(run_tool_here, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint16)
    masks[0, 5:15, 5:20], masks[2, 5:15, 5:20], masks[2, 20:30, 30:50] = 1, 7, 300
    tifffile.imwrite(tmp_path / "images" / "cells.tif", masks * 100, photometric="minisblack")
    tifffile.imwrite(tmp_path / "masks" / "cells.tif", masks, photometric="minisblack")
    flags = ["--pixels", "objects", "--output", tmp_path / "coco"]
    run = run_tool_here("prepare_dataset.py", "masks", tmp_path, *flags)
    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "coco" / "all.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"cells.tif#{page}" for page in range(3)]
    assert [entry["image_id"] for entry in content["annotations"]] == [1, 3, 3]
    assert list_pages(tmp_path / "images" / "cells.tif")[2].endswith("cells.tif#2")
