"""tools/predict.py with real detectors, alone and under torchrun, killed and not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from models import NARROW, QUICK, write_random_weights

from resnet_det.deploy import Detector
from resnet_det.engine import setup_model_cfg
from resnet_det.engine.exporting import export_model
from resnet_det.engine.predictor import Predictor

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"
OPTS = [*NARROW, *QUICK, "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.DEVICE", "cpu"]
OPTS += ["INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "72", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, request):
    """KEY VALUE pairs of a small detector with random weights whose scores differ."""
    path = tmp_path_factory.mktemp("tiny") / "weights.pth"
    write_random_weights(request.config.rootpath / DEMO, OPTS, path)
    return [*OPTS, "MODEL.WEIGHTS", str(path)]


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for path in sorted((folder / "results").iterdir()) for line in path.open()]


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_folder_is_predicted_and_evaluated(run_tool_here, small_data, tmp_path, tiny):
    annotations, images = small_data["val"]
    flags = [images, "--config-file", DEMO, "--output", tmp_path / "out", "--shard-size", 3, "--batch-size", 2]
    flags += ["--confidence-threshold", 0.05, "--opts", *tiny]
    run = run_tool_here("predict.py", *flags)
    assert run.returncode == 0, run.stderr
    rows = read_rows(tmp_path / "out")
    paths = sorted(map(str, Path(images).iterdir()))
    assert [row["file_name"] for row in rows] == paths
    predictor = Predictor(setup_model_cfg(DEMO, tiny))
    batches = [predictor.predict([cv2.imread(path) for path in batch]) for batch in (paths[:2], paths[2:3], paths[3:])]
    found = [
        [(d["bbox"], d["score"], d["segmentation"]) for d in instances_to_coco_json(instances, 0)]
        for batch in batches
        for instances in batch
    ]
    assert sum(map(len, found)) > 4
    for row, expected in zip(rows, found, strict=True):
        assert [d["segmentation"] for d in row["detections"]] == [mask for _, _, mask in expected]
        for detection, (box, score, _) in zip(row["detections"], expected, strict=True):
            assert np.float32(detection["score"]) == np.float32(score)
            np.testing.assert_array_equal(np.float32(detection["bbox"]), np.float32(box))
    text = f"4 images, {sum(map(len, found))} detections, 0 that could not be read; 4 images in "
    assert text in run.stdout.splitlines()[-1]
    assert run.stdout.splitlines()[-1].endswith(f"Results are in {tmp_path / 'out'}")
    evaluated = run_tool_here("evaluate.py", "--annotations", annotations, "--results", tmp_path / "out")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "segm: AP " in evaluated.stdout


def test_slices_are_part_of_what_results_depend_on(run_tool_here, small_data, tmp_path, tiny):
    flags = [small_data["val"][1], "--config-file", DEMO, "--output", tmp_path / "out", "--confidence-threshold", 0.05]
    run = run_tool_here("predict.py", *flags, "--slice", 100, "--opts", *tiny)
    assert run.returncode == 0, run.stderr
    rows = read_rows(tmp_path / "out")
    assert max(max(row["height"], row["width"]) for row in rows) > 100
    for detection in (detection for row in rows for detection in row["detections"]):
        assert detection["segmentation"]["size"] in [[row["height"], row["width"]] for row in rows]
    other = run_tool_here("predict.py", *flags, "--opts", *tiny)
    assert other.returncode == 2
    assert "SLICE" in other.stderr
    assert run_tool_here("predict.py", *flags, "--overlap", 0.3, "--opts", *tiny).stderr.endswith(
        "--overlap goes with --slice\n"
    )


def test_a_bad_image_is_told_and_ends_with_status_1(run_tool_here, tmp_path, tiny):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"\xff\xd8 cut off")
    cv2.imwrite(str(tmp_path / "photos" / "b.jpg"), np.zeros((1, 3000, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "photos" / "c.jpg"), np.zeros((40, 50, 3), np.uint8))
    flags = ["--config-file", DEMO, "--output", tmp_path / "out", "--opts", *tiny]
    run = run_tool_here("predict.py", tmp_path / "photos", *flags)
    assert run.returncode == 1
    assert "3 images, " in run.stdout
    assert "2 that could not be read" in run.stdout
    assert "such as" in run.stderr
    errors = [row["error"] for row in read_rows(tmp_path / "out")]
    assert errors[0].startswith("not a readable image")
    assert errors[1:] == ["nothing is left of an image of shape (1, 3000, 3) when it is resized", None]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["a", "--output", "x"],
            "command line: no detector: give --config-file and --opts MODEL.WEIGHTS, or --exported",
        ),
        (
            ["a", "--output", "x", "--exported", "e", "--opts", "A", "1"],
            "--exported is a whole detector, and goes without",
        ),
        (["no", "--output", "x", "--exported", "e"], "no: no such file or folder"),
        (["tools", "--output", "x", "--exported", "e"], "tools: no images and no tar shards there"),
        (["a", "--output", "x", "--exported", "e", "--batch-size", "0"], "--batch-size 0: at least 1"),
        (["a", "--output", "tools", "--exported", "e"], "--output tools: is there, and holds no predictions"),
    ],
)
def test_a_wrong_call_gives_one_line(run_tool_here, flags, message):
    run = run_tool_here("predict.py", *flags)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.long
def test_an_exported_detector_predicts(run_tool_here, small_data, tmp_path, tiny):
    export_model(setup_model_cfg(DEMO, tiny), tmp_path / "exported", formats=["onnx"])
    _, images = small_data["val"]
    flags = ["--exported", tmp_path / "exported", "--batch-size", 1, "--confidence-threshold", 0]
    run = run_tool_here("predict.py", images, "--output", tmp_path / "out", *flags)
    assert run.returncode == 0, run.stderr
    detector = Detector(tmp_path / "exported")
    for row in read_rows(tmp_path / "out"):
        expected = detector(cv2.imread(row["file_name"])).to_coco(0)
        assert [d["category_id"] for d in row["detections"]] == [d["category_id"] for d in expected]
        assert [d["segmentation"] for d in row["detections"]] == [d["segmentation"] for d in expected]
        np.testing.assert_allclose([d["bbox"] for d in row["detections"]], [d["bbox"] for d in expected], rtol=1e-6)


@pytest.fixture
def start(request, tmp_path, tiny):
    """Start tools/predict.py on 60 images in a folder and 40 in tar shards, in several processes."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (50, 40 + i % 30, 3), dtype=np.uint8) for i in range(100)]
    (tmp_path / "photos").mkdir()
    for i, picture in enumerate(pictures[:60]):
        cv2.imwrite(str(tmp_path / "photos" / f"{i:03d}.png"), picture)
    write_tar = request.getfixturevalue("write_tar")
    for shard in range(4):
        chosen = range(60 + 10 * shard, 70 + 10 * shard)
        members = {f"{i}.png": cv2.imencode(".png", pictures[i])[1].tobytes() for i in chosen}
        write_tar(tmp_path / f"data-{shard}.tar", members)
    started = []

    def call(output: Path, processes: int = 1) -> subprocess.Popen:
        flags = [tmp_path / "photos", f"{tmp_path}/data-{{0..3}}.tar", "--output", output, "--shard-size", 5]
        flags += ["--config-file", DEMO, "--confidence-threshold", 0, "--opts", *tiny]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        command = [sys.executable, *(launcher if processes > 1 else ()), "tools/predict.py", *flags]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(list(map(str, command)), cwd=request.config.rootpath, env=env)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait()


def wait_for_units(output: Path, count: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while len(list((output / "records").glob("[0-9]*.json"))) < count:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.long
def test_what_is_killed_three_times_gives_the_same_bytes(start, tmp_path):
    assert start(tmp_path / "undisturbed").wait(timeout=300) == 0
    rng, out = random.Random(0), tmp_path / "killed"
    for kill in range(3):
        process = start(out, processes=1 + kill % 2)
        wait_for_units(out, 4 * kill + rng.randint(1, 4))
        process.kill()  # of torchrun: its processes end with it
        process.wait()
    assert start(out, processes=2).wait(timeout=300) == 0
    assert read_files(out) == read_files(tmp_path / "undisturbed")
    names = [(row["shard"], row["file_name"]) for row in read_rows(out)]
    assert len(set(names)) == len(names) == 100


@pytest.mark.long
def test_sigterm_ends_at_once_and_keeps_what_is_finished(start, tmp_path):
    process = start(tmp_path / "out")
    wait_for_units(tmp_path / "out", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == -signal.SIGTERM  # 143 in a shell
    assert start(tmp_path / "out").wait(timeout=300) == 0
