"""tools/train_classifier.py: from a folder to results, and back."""

from __future__ import annotations

import json

import pytest
from labelled_images import SMALL_SQUARES, TINY, write_images

from resnet_det.classification import build_classifier_parser
from resnet_det.classification.tool import read_cfg
from resnet_det.errors import InputError

TOOL = "train_classifier.py"


def read_results(folder):
    return json.loads((folder / "results.json").read_text())["classification"]


def test_the_tool_trains_evaluates_and_tries_things_out(run_tool_here, photos, tmp_path):
    opts = [*TINY, *SMALL_SQUARES, "OUTPUT_DIR", tmp_path / "out"]
    assert run_tool_here(TOOL, "--data", photos, *opts).returncode == 0
    again = run_tool_here(TOOL, "--data", photos, *opts)
    assert again.returncode == 2
    assert "holds a run: --resume goes on with it" in again.stderr
    config = ["--config-file", tmp_path / "out" / "config.yaml", "--eval-only"]
    weights = ["MODEL.WEIGHTS", tmp_path / "out" / "classifier.safetensors"]
    assert run_tool_here(TOOL, *config, *weights, "OUTPUT_DIR", tmp_path / "evaluated").returncode == 0
    assert read_results(tmp_path / "evaluated") == read_results(tmp_path / "out")
    assert run_tool_here(TOOL, *config, "--resume").returncode == 0
    assert run_tool_here(TOOL, "--fast-dev-run", "--data", photos, *opts).returncode == 0
    assert (tmp_path / "out" / "fast_dev_run" / "classifier.safetensors").is_file()
    assert (tmp_path / "out" / "classifier.safetensors").is_file()


def test_what_cannot_work_is_told_in_a_line(run_tool_here, photos, tmp_path):
    write_images(tmp_path / "other", ["gnu", "yak"], per_class=1)
    out = ["OUTPUT_DIR", tmp_path / "out", "MODEL.DEVICE", "cpu"]
    for flags, message in (
        (["--data", tmp_path / "nowhere"], "--data {tmp}/nowhere: no such folder"),
        (["--data", photos, "--test-data", photos], "--data names both sets"),
        (["--train-data", photos / "train", "--test-data", tmp_path / "other"], "its classes are not those of"),
        ([], "DATASETS.TRAIN is empty"),
        (["--eval-only"], "DATASETS.TEST is empty: --test-data names the images"),
    ):
        run = run_tool_here(TOOL, *flags, *out)
        assert run.returncode == 2
        (line,) = [line for line in run.stderr.splitlines() if line.startswith("train_classifier: ")]
        assert message.format(tmp=tmp_path) in line


def test_sets_that_flags_replace_are_told_and_contradictions_refused(photos, tmp_path, caplog):
    config = tmp_path / "config.yaml"
    config.write_text("DATASETS: {TRAIN: [elsewhere/train], TEST: [elsewhere/val]}")

    def read(*args):
        caplog.clear()
        return read_cfg(build_classifier_parser().parse_args(["--config-file", str(config), *map(str, args)]))

    caplog.set_level("INFO")
    cfg = read("--train-data", photos / "train")
    assert ((str(photos / "train"),), ()) == (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    assert f"--train-data {photos}/train takes the place of DATASETS.TRAIN elsewhere/train" in caplog.text
    assert "Nothing is evaluated on elsewhere/val" in caplog.text
    cfg = read("--train-data", photos / "train", "DATASETS.TEST", f"['{photos}/test']")
    assert list(cfg.DATASETS.TEST) == [f"{photos}/test"]
    assert "Nothing is evaluated" not in caplog.text
    cfg = read("--data", photos)
    assert (f"{photos}/test",) == cfg.DATASETS.TEST
    assert f"--data {photos}/test takes the place of DATASETS.TEST elsewhere/val" in caplog.text
    for flags, key in ((["--data", photos], "TEST"), (["--test-data", photos], "TEST"), (["--data", photos], "TRAIN")):
        with pytest.raises(
            InputError, match=rf"{flags[0]} and DATASETS.{key} both name the images to {key.lower()} on"
        ):
            read(*flags, f"DATASETS.{key}", "['other']")
