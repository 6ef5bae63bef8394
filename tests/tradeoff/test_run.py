"""From folders of runs, and from configs, to the page."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from models import QUICK

from resnet_det import add_resnet_det_config
from resnet_det.errors import InputError
from resnet_det.tradeoff import Measuring, compare_configs, compare_runs
from resnet_det.tradeoff import cost as cost_module
from resnet_det.tradeoff import run as run_module
from resnet_det.tradeoff.accuracy import measure_accuracy
from resnet_det.tradeoff.candidates import find_differences, load_candidate, load_test_inputs, read_configs, read_runs
from resnet_det.tradeoff.learning import MAX_POINTS, read_curves

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"
MEASURING = Measuring(pairs=3)


def write_run(folder, depth, data, *, seed, opts=()):
    """A folder as training leaves it, with random weights, and results that are the ground truth, moved a bit."""
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.merge_from_file(DEMO)
    entry = ["small_val_compared", *data]
    cfg.merge_from_list(["MODEL.RESNETS.DEPTH", depth, "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", 64])
    cfg.merge_from_list([*QUICK, *opts])
    cfg.RESNET_DET.DATA.COCO, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = [entry], (entry[0],), "moved/since"
    (folder / "inference").mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(seed)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model_final.pth")
    rng = np.random.default_rng(seed)
    with open(data[0]) as file:
        annotations = json.load(file)["annotations"]
    results = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": (np.array(one["bbox"]) + rng.uniform(0, 0.05 * one["bbox"][2], 4)).tolist(),
            "score": float(rng.random()),
        }
        for one in annotations
    ]
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    lines = [{"iteration": 19, "total_loss": 2.0}, {"iteration": 39, "total_loss": 1.5, "bbox/AP": 12.5}]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 59, "total_l')
    return folder


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory, request):
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        return [
            write_run(root / "shallow", 18, small_data["val"], seed=1),
            write_run(root / "deep", 34, small_data["val"], seed=2, opts=["SOLVER.MAX_ITER", 901]),
        ]


@pytest.fixture
def runs(finished, tmp_path):
    """Copies, to be damaged; weights, which are large, are links that may be replaced."""

    def copy(source, target):
        (os.link if source.endswith(".pth") else shutil.copy)(source, target)

    return [shutil.copytree(folder, tmp_path / folder.name, copy_function=copy) for folder in finished]


def test_two_runs_become_a_page(finished, tmp_path, browse):
    tradeoff, verdict = compare_runs(finished, tmp_path / "new" / "out", MEASURING, num_images=2, num_draws=20)
    assert list(tradeoff.names) == ["R-18", "R-34"]
    assert verdict.question in ("Is R-34 worth it?", "Is R-18 worth it?")  # whichever took longer
    assert [accuracy.iou_type for accuracy in tradeoff.accuracies] == ["bbox"]
    shallow, deep = tradeoff.costs
    # A basic block more in res2, two in res3, four in res4, one in res5.
    weights = sum(n * 2 * 9 * channels**2 for n, channels in ((1, 64), (2, 128), (4, 256), (1, 512)))
    norms = sum(n * 2 * 2 * channels for n, channels in ((1, 64), (2, 128), (4, 256), (1, 512)))
    assert deep.parameters - shallow.parameters == weights + norms
    assert deep.gmacs > shallow.gmacs > 0.1
    assert shallow.memory_mib > 1
    assert len(deep.rounds_ms) == 3
    assert deep.latency_ms == pytest.approx(np.median(deep.rounds_ms))
    assert tradeoff.differences == {"SOLVER.MAX_ITER": ["900", "901"]}
    assert tradeoff.curves[0] == {"total_loss": [(19, 2.0), (39, 1.5)], "bbox/AP": [(39, 12.5)]}
    numbers = json.loads((tmp_path / "new" / "out" / "tradeoff.json").read_text())
    assert numbers["detectors"][1]["latency_ms"] == deep.latency_ms
    assert "2 images from all over small_val_compared" in numbers["facts"]["measured on"]
    page = browse(tmp_path / "new" / "out" / "tradeoff.html")
    assert page.locator("h1").text_content() == verdict.question
    assert "SOLVER.MAX_ITER" in page.locator("#differences ~ .scroll").text_content()


def test_weights_and_images_are_those_of_the_run(finished):
    candidates, test_set = read_runs(finished, device="cpu")
    for candidate in candidates:
        expected = torch.load(candidate.weights, weights_only=True)["model"]
        state = load_candidate(candidate).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    first, second = (load_test_inputs(candidate, test_set, 2) for candidate in candidates)
    assert [batch[0]["file_name"] for batch in first] == [batch[0]["file_name"] for batch in second]
    assert first[0][0]["file_name"] != first[1][0]["file_name"]
    assert min(first[0][0]["image"].shape[1:]) == 64
    assert len(load_test_inputs(candidates[0], test_set, 100)) == 4


def test_what_cannot_be_measured_is_said_and_ap_is_there(finished, tmp_path, monkeypatch):
    failing = []

    def fail(model, *_, **__):
        failing.append(model)
        raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr(cost_module, "analyze_model", fail)
    tradeoff, verdict = compare_runs(finished, tmp_path, MEASURING, num_images=1, num_draws=5)
    assert len(failing) == 2
    assert tradeoff.axis == "parameters_m"
    assert not tradeoff.is_complete
    assert tradeoff.notes == ["R-18 could not be run: out of memory", "R-34 could not be run: out of memory"]
    assert "million parameters" in verdict.reasons[0]
    numbers = json.loads((tmp_path / "tradeoff.json").read_text())
    assert numbers["detectors"][0]["gmacs"] is None
    assert numbers["detectors"][0]["ap"]["bbox"]["metrics"]["AP"] > 10


def test_ap_is_written_before_cost_is_measured(finished, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnet_det.tradeoff.run.measure_costs", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare_runs(finished, tmp_path, MEASURING, num_draws=5)
    numbers = json.loads((tmp_path / "tradeoff.json").read_text())
    assert numbers["detectors"][1]["ap"]["bbox"]["interval"]["value"] > 10
    assert numbers["notes"] == ["Measuring the cost has not ended."]
    assert (tmp_path / "tradeoff.html").is_file()


def remove(name):
    return lambda runs: (runs[1] / name).unlink()


def edit(place, old, new):
    def change(runs):
        path = runs[place] / "config.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def swap_weights(runs):
    (runs[1] / "model_final.pth").unlink()
    os.link(runs[0] / "model_final.pth", runs[1] / "model_final.pth")


def evaluate_elsewhere(runs):
    edit(1, "TEST:\n  - small_val_compared", "TEST:\n  - resnet_det_demo_val")(runs)


def break_both(runs):
    remove("config.yaml")(runs)
    remove("config.yaml")(runs[::-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.yaml"), r"deep: no config.yaml; the OUTPUT_DIR of a run of tools/train_net.py would be right"),
        (remove("model_final.pth"), r"deep: no model_final.pth; a run that has ended has one .--resume"),
        (
            remove("inference/coco_instances_results.json"),
            r"deep: no inference/coco_instances_results.json: it was not evaluated on small_val_compared. To do so: "
            r"tools/train_net.py --config-file \S+deep/config.yaml --eval-only",
        ),
        (edit(1, "EMA_DECAY: 0.0", "EMA_DECAY: 0.9"), r"deep: no model_final_ema.pth"),
        (edit(1, "MAX_IMAGES: 0", "MAX_IMAGES: 2"), r"deep: evaluated on 2 images alone .RESNET_DET.TEST.MAX_IMAGES"),
        (edit(1, "DEPTH: 34", "DEPTH: 33"), r"deep/config.yaml: MODEL.RESNETS: "),
        (swap_weights, r"model_final.pth: this file is a ResNet-18, the config says 34"),
        (evaluate_elsewhere, r"different data sets: \S+shallow on small_val_compared \(.*deep on resnet_det_demo_val"),
        (lambda runs: shutil.rmtree(runs[1]), r"deep: no such folder; the OUTPUT_DIR of a run would be right"),
        (lambda runs: runs.pop(), r"1 run given; two or more folders of runs would make a comparison"),
        (break_both, r"2 of 2 cannot be compared:\n  - \S+shallow: no config.yaml.*\n  - \S+deep: no config.yaml"),
        (edit(1, "SLICE: 0", "SLICE: 64"), r"deep: evaluated in slices .*RESNET_DET.TEST.SLICE 0"),
        (edit(1, "CROWD_AS_OBJECTS: false", "CROWD_AS_OBJECTS: true"), r"CROWD_AS_OBJECTS is not the same in all runs"),
    ],
)
def test_what_is_wrong_with_runs_is_said(runs, tmp_path, damage, message):
    damage(runs)
    with pytest.raises(InputError, match=message):
        compare_runs(runs, tmp_path / "out", MEASURING, num_draws=5)


@pytest.mark.long
def test_the_settings_of_the_runs_are_used(runs, tmp_path, monkeypatch):
    seen = {}

    def measure(truth, found, iou_type, **options):
        seen.update(options, crowds=int(truth.crowd.sum()))
        return measure_accuracy(truth, found, iou_type, **options)

    monkeypatch.setattr(run_module, "measure_accuracy", measure)
    for place in (0, 1):
        edit(place, "CROWD_AS_OBJECTS: false", "CROWD_AS_OBJECTS: true")(runs)
    config = runs[1] / "config.yaml"
    config.write_text(re.sub(r"DETECTIONS_PER_IMAGE: \d+", "DETECTIONS_PER_IMAGE: 300", config.read_text()))
    measuring = Measuring(pairs=0)
    tradeoff, _ = compare_runs(runs, tmp_path / "out", measuring, num_images=1, num_draws=5)
    assert (seen["max_detections"], seen["crowds"]) == (300, 0)
    assert "AR300" in tradeoff.accuracies[0].metrics[0]
    assert tradeoff.facts["limit, bbox"].startswith("300 detections of an image and class")
    assert "AR300" in (tmp_path / "out" / "tradeoff.html").read_text()
    (runs[1] / "inference" / "coco_instances_results.json").write_text("[]")
    tradeoff, _ = compare_runs(runs, tmp_path / "empty", measuring, num_images=1, num_draws=5)
    assert tradeoff.accuracies[0].ap[1] == 0


def test_numbers_that_cannot_be_are_one_error(finished, tmp_path):
    with pytest.raises(InputError, match="--images 0: 1 or more"):
        compare_runs(finished, tmp_path, MEASURING, num_images=0)
    with pytest.raises(InputError, match="--input-size 64 31: 32 pixels or more each"):
        compare_configs([DEMO], [18, 34], tmp_path, MEASURING, input_size=(64, 31))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_one_error(finished, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output \S+file: "):
        compare_runs(finished, tmp_path / "file", MEASURING)


def test_configs_alone_have_costs(tmp_path, browse, run_tool_here, request):
    config = tmp_path / "small.yaml"
    few = "MODEL: {RPN: {POST_NMS_TOPK_TEST: 10}}\nTEST: {DETECTIONS_PER_IMAGE: 5}"
    config.write_text(f"_BASE_: {request.config.rootpath / DEMO}\n{few}\n")
    sizes = ["--depths", 18, 26, "--input-size", 64, 96, "--no-latency"]
    run = run_tool_here("compare_depths.py", "--config-file", config, *sizes, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "Is R-26 worth it? Configs alone do not tell: they have no AP." in run.stdout
    assert re.search(r"R-26 costs [\d.]+ GMACs, 1\.\d times as much as R-18", run.stdout), run.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tradeoff.html", "tradeoff.json"]
    numbers = json.loads((tmp_path / "out" / "tradeoff.json").read_text())
    assert [detector["latency_ms"] for detector in numbers["detectors"]] == [None, None]
    assert numbers["detectors"][1]["gmacs"] > numbers["detectors"][0]["gmacs"]
    page = browse(tmp_path / "out" / "tradeoff.html", 390, 844)
    assert page.locator("h1").text_content() == "Is R-26 worth it?"
    assert page.locator("svg.chart").count() == 0
    rows = page.locator("table tbody tr")
    assert rows.count() == 2
    assert rows.first.locator("td").all_text_contents()[:3] == ["R-18", "–", "–"]  # noqa: RUF001


def test_names_differ(monkeypatch, request, tmp_path):
    monkeypatch.chdir(request.config.rootpath)
    other = shutil.copy(DEMO, tmp_path / "mine.yaml")
    names = [one.name for one in read_configs([DEMO, str(other)], [18, 34], device="cpu")]
    assert names == [f"{stem}, depth {depth}" for stem in ("mask_rcnn_R_18_FPN", "mine") for depth in (18, 34)]
    assert [one.name for one in read_configs([DEMO], [14, 50], device="cpu")] == ["R-14", "R-50"]
    (again, same) = read_configs([DEMO, DEMO], device="cpu")
    assert (again.name, same.name) == (f"{DEMO} (1)", f"{DEMO} (2)")
    assert find_differences([again, same]) == {}
    with pytest.raises(InputError, match="1 config given; two or more config files, or --depths, would make a comp"):
        read_configs([DEMO], device="cpu")


def test_curves_are_thinned_and_the_last_of_an_iteration_counts(tmp_path):
    assert read_curves(tmp_path) == {}
    lines = [json.dumps({"iteration": number % 2000, "total_loss": float(number)}) for number in range(3000)]
    (tmp_path / "metrics.json").write_text(
        "\n".join([*lines, "7", '{"total_loss": 3.0}', '{"iteration": 1, "total_loss": NaN}'])
    )
    (curve,) = read_curves(tmp_path).values()
    assert MAX_POINTS * 0.9 < len(curve) <= MAX_POINTS + 1
    assert curve[0] == (0, 2000.0)
    assert curve[-1] == (1999, 1999.0)
