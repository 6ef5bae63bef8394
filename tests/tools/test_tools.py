"""Each tool says how it is used, and what is wrong with a wrong input."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import build_model

from resnet_det.benchmark.random_results import random_results


@pytest.fixture
def run_tool(request):
    def run(name, *args):
        env = os.environ | {"OMP_NUM_THREADS": "1"}  # as in conftest.py
        command = [sys.executable, str(request.config.rootpath / "tools" / name), *map(str, args)]
        return subprocess.run(
            command, cwd=request.config.rootpath, capture_output=True, text=True, timeout=300, env=env
        )

    return run


def test_every_tool_has_help(request, run_tool_here):
    tools = sorted((request.config.rootpath / "tools").glob("*.py"))
    assert {"train_net.py", "visualize.py", "install_detectron2.py", "setup_env.py"} <= {path.name for path in tools}
    for tool in tools:
        run = run_tool_here(tool.name, "--help")
        assert run.returncode == 0, tool
        assert f"usage: {tool.name}" in run.stdout, tool


def test_no_tool_begins_with_warnings_of_others(run_tool):
    run = run_tool("evaluate.py", "--help")
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("train_net.py", ["--config-file", "no.yaml"], "train_net: --config-file no.yaml: no such file"),
        ("train_net.py", ["MODEL.DEPTH", "18"], "train_net: command line: MODEL.DEPTH 18: there is no key MODEL.DEPTH"),
        (
            "lazyconfig_train_net.py",
            ["--config-file", "no.py"],
            "lazyconfig_train_net: --config-file no.py: no such file",
        ),
        ("convert_weights.py", ["no.pth", "x.pth"], "convert_weights: weights no.pth: no such file"),
        ("analyze_model.py", ["--config-file", "no.yaml"], "analyze_model: --config-file no.yaml: no such file"),
        (
            "check_dataset.py",
            ["--annotations", "no.json", "--images", "."],
            "check_dataset: --annotations no.json: no such file",
        ),
        (
            "evaluate.py",
            ["--annotations", "no.json", "--results", "r.json"],
            "evaluate: no.json: no such annotation file",
        ),
        (
            "count_objects.py",
            ["--annotations", "no.json", "--results", "r.json", "--output", "output/no"],
            "count_objects: no.json: no such annotation file",
        ),
        (
            "cross_validate.py",
            ["--config-file", "no.yaml", "--data", "no.json", "--images", ".", "--output", "output/no"],
            "cross_validate: --config-file no.yaml: no such file",
        ),
        ("compare_depths.py", ["no", "no2", "--output", "output/no"], "compare_depths: 2 of 2 cannot be compared:"),
        ("compare_depths.py", ["--output", "output/no"], "compare_depths: give folders of runs, or --config-file"),
        ("compare_depths.py", ["a", "b", "--depths", "18", "--output", "output/no"], "--depths is for --config-file"),
        ("visualize.py", ["--input", "no.jpg", "--output", "x"], "visualize: "),
        ("prepare_dataset.py", ["voc", "no", "--output", "x"], "prepare_dataset: no: no such folder"),
        ("prepare_dataset.py", ["yolo", "no.yaml", "--output", "x"], "prepare_dataset: no.yaml: neither data.yaml nor"),
    ],
)
def test_a_wrong_input_gives_one_line_and_status_2(run_tool_here, tool, args, message):
    run = run_tool_here(tool, *args)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


def test_weights_are_converted_and_listed(run_tool_here, tmp_path):
    source = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), source)
    run = run_tool_here("convert_weights.py", source, tmp_path / "R-18.pkl")
    assert run.returncode == 0, run.stderr
    assert "ResNet-18: 122 tensors, torchvision to detectron2 names, verified" in run.stdout
    back = run_tool_here(
        "convert_weights.py", tmp_path / "R-18.pkl", tmp_path / "back.safetensors", "--to", "torchvision"
    )
    assert "detectron2 to torchvision names" in back.stdout
    assert "torchvision://resnet50/IMAGENET1K_V2  BSD-3-Clause" in run_tool_here("convert_weights.py", "--list").stdout


def test_costs_are_shown_by_part_and_over_depths(run_tool_here, tmp_path):
    config = ["--config-file", "configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml", "--input-size", "64", "96"]
    run = run_tool_here("analyze_model.py", *config, "--compare-depths", 18, 34, "--repeats", 1, "--output", tmp_path)
    assert run.returncode == 0, run.stderr
    assert "R-34, one image of 64x96 on cpu" in run.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"costs.json", "costs.png"}


def test_a_data_set_is_checked_and_cleaned(run_tool_here, coco_files, tmp_path):
    path, images = coco_files
    run = run_tool_here("check_dataset.py", "--annotations", path, "--images", images)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "0 errors, 0 warnings, 0 notes"), run.stderr
    path.write_text(path.read_text().replace("[4, 4, 20, 16]", "[4, 4, -20, 16]").replace("[8, 6, 30", "[-8, 6, 30"))
    run = run_tool_here("check_dataset.py", "--annotations", path, "--images", images, "--fix", tmp_path / "new")
    assert run.returncode == 0, run.stderr  # the object is left out everywhere, which does not stop training
    assert "a.png, image 1, annotation 1: box [4, 4, -20, 16]: width and height above 0 would be right" in run.stdout
    assert "used: 2 images, 1 objects, 2 classes; not used: 1 objects: box-without-area" in run.stdout
    assert "0 errors, 2 warnings, 0 notes" in run.stdout
    assert "1  boxes clipped to their image" in run.stdout
    fixed = run_tool_here("check_dataset.py", "--annotations", tmp_path / "new" / path.name, "--images", images)
    assert (fixed.returncode, fixed.stdout.splitlines()[-1]) == (0, "0 errors, 0 warnings, 1 note")
    again = run_tool_here("check_dataset.py", "--annotations", path, "--images", images, "--fix", tmp_path / "new")
    assert (again.returncode, again.stdout) == (2, "")


def test_results_are_evaluated_and_compared(run_tool_here, tmp_path):
    content, results = random_results(31, num_images=10)
    paths = [tmp_path / name for name in ("annotations.json", "results.json", "other.json")]
    for path, data in zip(paths, (content, results, results[::2]), strict=True):
        path.write_text(json.dumps(data))
    args = ["--annotations", paths[0], "--results", paths[1], "--iou-type", "bbox"]
    run = run_tool_here("evaluate.py", *args, "--compare", paths[2], "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert f"bbox: AP {numbers['bbox']['metrics']['AP']:.1f}, AP50" in run.stdout
    assert "no confidence interval: " in run.stdout
    assert "bbox: AP of the other run" in run.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    paths[1].write_text(json.dumps([row | {"score": None} for row in results]))
    wrong = run_tool_here("evaluate.py", *args)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[-1].startswith(f"evaluate: {paths[1]}: 200 of 200 results have a score that is no")


def test_images_a_folder_and_a_video_are_drawn_and_a_corrupt_image_is_told(
    run_tool, run_tool_here, request, default_cfg, tmp_path
):
    default_cfg.merge_from_file(str(request.config.rootpath / "configs/demo/mask_rcnn_R_18_FPN.yaml"))
    default_cfg.MODEL.DEVICE = "cpu"
    torch.save({"model": build_model(default_cfg).state_dict()}, tmp_path / "weights.pth")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        image = np.random.randint(0, 255, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str((tmp_path if number < 3 else folder) / f"{number}.png"), image)
    (folder / "bad.jpg").write_bytes(b"no image")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 4, (80, 60))
    for number in range(20):  # 5 seconds
        writer.write(np.full((60, 80, 3), 10 * number, dtype=np.uint8))
    writer.release()
    config = ["--config-file", "configs/demo/mask_rcnn_R_18_FPN.yaml"]
    opts = ["--opts", "MODEL.WEIGHTS", tmp_path / "weights.pth", "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64"]
    opts += ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.ROI_HEADS.NUM_CLASSES", "6"]
    images = [tmp_path / f"{number}.png" for number in range(3)]
    good = run_tool_here(
        "visualize.py", *config, "--input", *images, tmp_path / "clip.avi", "--output", tmp_path / "a", *opts
    )
    assert good.returncode == 0, good.stderr
    assert "23 images in " in good.stdout
    assert "images/s" in good.stdout
    names = {"0.png", "1.png", "2.png", "clip.mp4", "gallery.html", "images.json", "thumbnails"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names | {"coco_instances_results.json"}
    bad = run_tool("visualize.py", *config, "--input", folder, "--output", tmp_path / "b", *opts)
    assert bad.returncode == 1, bad.stderr
    assert f"{folder / 'bad.jpg'}: not a readable image" in bad.stdout + bad.stderr
    assert "Traceback" not in bad.stderr
    assert "1 could not be read" in bad.stderr
    assert {path.name for path in (tmp_path / "b").glob("*.png")} == {"3.png", "4.png"}


def test_the_environment_is_described_and_tested(run_tool_here):
    run = run_tool_here("check_env.py")
    assert run.returncode == 0, run.stderr
    assert "self-test passed" in run.stdout
    assert "Detectron2 0." in run.stdout
