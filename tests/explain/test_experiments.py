"""Each experiment from images to numbers, at toy size."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_det.classification import Classifier
from resnet_det.errors import InputError
from resnet_det.explain import EXPERIMENTS, Data, Order, run_experiment, write_page
from resnet_det.explain.lab import Lab, Recipe, TrainingStoppedError
from resnet_det.explain.nets import Net
from resnet_det.explain.step_memory import measure_step, measure_step_here
from resnet_det.explain.verdicts import CONFIRMED, NOT_CONFIRMED, NOT_SHOWN
from resnet_det.outputs import link_file


def run(name, data, order, settings):
    verdict = run_experiment(EXPERIMENTS[name], settings, data, order)
    assert verdict.outcome in (CONFIRMED, NOT_CONFIRMED, NOT_SHOWN)
    (path,) = (order.output / "results").glob(f"{name}-seed0.json")
    return json.loads(path.read_text())["numbers"]


def test_degradation(toy_data, toy_order, toy):
    numbers = run("degradation", toy_data, toy_order, toy())
    assert [(net["kind"], net["depth"]) for net in numbers["nets"]] == [
        ("plain", 8), ("residual", 8), ("plain", 14), ("residual", 14),
    ]  # fmt: skip
    for net in numbers["nets"]:
        assert [point["iteration"] for point in net["curve"]] == [1, 2]
        assert all(0 <= point["train_error"] <= 100 for point in net["curve"])


def test_gradients(toy_data, toy_order, toy):
    numbers = run("gradients", toy_data, toy_order, toy())
    assert len(numbers["nets"]) == 2 * 4 + 2 * 2
    assert {net["when"] for net in numbers["nets"]} == {"at the start", "after training"}


def test_curves_are_of_the_weights_at_that_time(toy_data, toy_order, toy):
    """The errors on the last weights, by the forward pass of the model itself."""
    lab = Lab(toy_data, toy_order.output)
    trained = lab.train(Net(8), Recipe.of(toy()), 0)
    model = trained.load()
    for split, count in (("train", 12), ("test", 12)):
        pixels, labels = lab.pixels(trained, toy_data.images(split, count))
        wrong = (model.backbone(pixels)["linear"].argmax(1) != labels).float().mean().item()
        assert getattr(trained.curve[-1], f"{split}_error") == pytest.approx(100 * wrong)


def test_what_is_there_is_not_done_again(toy_data, toy_order, toy, make_toy_images, tmp_path, monkeypatch):
    run("degradation", toy_data, toy_order, toy())
    monkeypatch.setattr("resnet_det.explain.lab.train_classifier", lambda *_, **__: pytest.fail("trained again"))
    before = (toy_order.output / "results" / "degradation-seed0.json").read_bytes()
    run("degradation", toy_data, toy_order, toy())
    assert (toy_order.output / "results" / "degradation-seed0.json").read_bytes() == before
    with pytest.raises(InputError, match=r"was measured with iterations 2, and this command has iterations 3: --overw"):
        run("degradation", toy_data, toy_order, toy(iterations=3))
    other = Data(make_toy_images(tmp_path, (("train", 11), ("test", 8))))
    with pytest.raises(InputError, match=r"20 training and 16 test images of 2 classes .*, and this command has taken"):
        run("degradation", other, toy_order, toy())


def test_pixels_make_other_data(toy_data, toy_order, toy, make_toy_images, tmp_path):
    run("degradation", toy_data, toy_order, toy())
    root = make_toy_images(tmp_path / "toy_images")
    for path in (root / "train" / "ant").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(InputError, match="was measured with taken from 20 training and 16 test images of 2 classes"):
        run("degradation", Data(str(root)), toy_order, toy())


def test_seeds_that_stay_are_looked_at_before_others_are_measured_anew(toy_data, toy, tmp_path, monkeypatch):
    order = Order(tmp_path, seeds=2)
    run_experiment(EXPERIMENTS["gradients"], toy(depths=(8,), iterations=1), toy_data, order)
    monkeypatch.setattr("resnet_det.explain.run._measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"gradients, seed 1, was measured with probes 4, and this command has probes"):
        run("gradients", toy_data, replace(order, seeds=1, overwrite=True), toy(depths=(8,), iterations=1, probes=2))


def test_a_signal_leaves_no_points_of_its_own(toy_data, toy, tmp_path, monkeypatch):
    recipe, losses, compute_loss = Recipe.of(toy(iterations=6)), [], Classifier.compute_loss
    whole = Lab(toy_data, tmp_path / "whole").train(Net(8), recipe, 0)

    def end_once(self, logits, labels):
        losses.append(compute_loss(self, logits, labels))
        if len(losses) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses[-1]

    monkeypatch.setattr(Classifier, "compute_loss", end_once)
    with pytest.raises(TrainingStoppedError):
        Lab(toy_data, tmp_path / "ended").train(Net(8), recipe, 0)
    ended = Lab(toy_data, tmp_path / "ended").train(Net(8), recipe, 0)
    assert len(losses) == 6
    assert [point.iteration for point in whole.curve] == [3, 6]
    assert ended.curve == whole.curve
    assert [step for step, _ in ended.losses] == [step for step, _ in whole.losses]  # each smoothed since the start


def test_data_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Data(tmp_path / "none")
    with pytest.raises(InputError, match="nothing has been measured there"):
        write_page(tmp_path)
    (tmp_path / "explained.html").write_text("mine")
    with pytest.raises(InputError, match="not of this tool"):
        write_page(tmp_path)
    with pytest.raises(InputError, match="6n \\+ 2 layers"):
        Net(18)


def test_identity_and_lesion(toy_data, toy_order, toy):
    for name in ("identity", "lesion"):
        numbers = run(name, toy_data, toy_order, toy())
        names = ["plain-8", "residual-8", "plain-14", "residual-14"]
        assert [net["name"] for net in numbers["nets"]] == names
    assert [len(net["without"]) for net in numbers["nets"]] == [1, 3, 4, 6]  # shapes change twice


def test_thousand(toy_data, toy_order, toy, monkeypatch):
    monkeypatch.setattr("resnet_det.explain.thousand.measure_step", measure_step_here)
    numbers = run("thousand", toy_data, toy_order, toy(depths=(26,), iterations=1))
    check_memory(*numbers["memory"])


@pytest.mark.long
def test_memory_in_a_process_of_its_own():
    check_memory(*(measure_step(Net(26), 4, checkpointed=on) for on in (False, True)))


def check_memory(without, checkpointed):
    assert checkpointed["tensors"] < without["tensors"]
    assert checkpointed["loss"] == pytest.approx(without["loss"], rel=1e-4)
    # Each of the 25 convolutions keeps its input for the backward pass, and each norm, in float32.
    kept = 2 * 4 * 4 * 8 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2)
    assert kept < without["tensors"] < 3 * kept


def test_returns_and_overfit(toy_data, toy_order, toy, tmp_path):
    detectors = [{"name": name, "gmacs": 10.0 * n, "parameters": 1e7 * n} for n, name in ((1, "R-18"), (2, "R-50"))]
    for one in detectors:
        one["ap"] = {"bbox": {"metrics": {"AP": one["gmacs"]}}}
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps({"detectors": detectors[::-1]}))
    numbers = run("returns", toy_data, replace(toy_order, detectors=path), toy())
    assert [round(net["parameters_m"], 3) for net in numbers["nets"]] == [0.075, 0.172]  # by hand: 74,770 and 171,986
    assert [one["name"] for one in numbers["detectors"]] == ["R-18", "R-50"]
    numbers = run("overfit", toy_data, toy_order, toy(depths=(8,), iterations=1))
    assert [net["images"] for net in numbers["nets"]] == [2, 2, 2, 2, 3, 16]
    assert [net["remedy"] for net in numbers["nets"]][1:4] == ["stochastic depth", "weight decay", "augmentation"]


def test_features(toy_data, toy_order, toy):
    numbers = run("features", toy_data, toy_order, toy())
    assert list(numbers["nets"][0]["accuracy"]) == ["res2", "res3", "res4"]
    assert len(numbers["nets"][0]["pictures"]) == 1 + 2
    assert all(uri.startswith("data:image/png") for row in numbers["nets"][0]["pictures"].values() for _, uri in row)


@pytest.fixture
def page_file(toy_data, toy_order, toy, tmp_path):
    """The page of some experiments; each chart takes its time."""
    for name in ("degradation", "lesion", "features"):
        run(name, toy_data, toy_order, toy())
        measured = Path("results", f"{name}-seed0.json")
        link_file(toy_order.output / measured, tmp_path / measured)
    return write_page(tmp_path)


def test_the_page_says_all_and_fits_the_screen(page_file, browse):
    for width in (360, 1280):
        page = browse(page_file, width, 800)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    sections = page.locator("section")
    assert sections.evaluate_all("all => all.map(one => one.id)") == list(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        text = page.locator(f"#{name}").text_content()
        assert experiment.statement in text
        assert all(source.where in text for source in experiment.sources)
        assert experiment.rule in text
    lesion = page.locator("#lesion")
    assert lesion.locator(".outcome").text_content().startswith(("Confirmed: ", "Not confirmed: ", "Does not show at "))
    assert lesion.locator("pre").text_content() == "tools/explain_resnet.py toy"
    assert "cores" in lesion.locator("dl").text_content()
    assert page.locator("#degradation svg.chart").count() == 4
    assert page.locator("#features img").count() == 2 * (1 + 2 * 7)
    assert page.locator("#features img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert page_file.stat().st_size < 2e6


def test_the_tool_runs_and_rebuilds_the_page(toy_root, toy_order, toy_data, toy, tmp_path, run_tool_here):
    trained = Lab(toy_data, toy_order.output).train(Net(8), Recipe.of(toy()), 0)
    weights, output = trained.weights.with_name("classifier.safetensors"), tmp_path / "out"
    common = ["--data", toy_root, "--output", output, "--seeds", 1, "--probes", 4]
    done = run_tool_here("explain_resnet.py", "lesion", *common, "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert "no plain net was given" in done.stdout
    measured = json.loads((output / "results" / "lesion-weights-seed0.json").read_text())
    told = "--data DATA --output OUTPUT --seeds 1 --probes 4 --weights classifier.safetensors"
    assert measured["command"] == f"tools/explain_resnet.py lesion {told}"
    assert not (output / "nets").exists()
    page = (output / "explained.html").read_text()
    (output / "explained.html").unlink()
    done = run_tool_here("explain_resnet.py", "page", "--output", output)
    assert done.stdout == f"Written: {output / 'explained.html'}\n"
    assert (output / "explained.html").read_text() == page
    assert "With the weights of nets from elsewhere" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["degradation", "--depths", 20, 8], "--depths 20 8: each once, the smallest first"),
        (["degradation", "--depths", 9], "depth 9: nets for CIFAR have 6n + 2 layers"),
        (["degradation", "--epochs", 1, "--iterations", 3], "--epochs and --iterations both say how long"),
        (["degradation", "--seeds", 0], "--seeds 0: 1 or more"),
        (["lesion", "--weights", __file__], "--weights "),
        (["returns", "--detectors", __file__], "tradeoff.json of tools/compare_depths.py"),
        (["degradation", "--images", 1, "--seeds", 1], "1 images of 2 classes to train on: give more"),
    ],
)
def test_wrong_input_is_told(arguments, message, toy_root, tmp_path, run_tool_here):
    done = run_tool_here("explain_resnet.py", *arguments, "--data", toy_root, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("explain_resnet: ")
    assert message in done.stderr
