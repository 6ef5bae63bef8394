"""Each experiment from images to numbers, at toy size."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_det.classification import Classifier
from resnet_det.engine.solver import build_lr_scheduler
from resnet_det.errors import InputError
from resnet_det.explain import (
    EXPERIMENTS,
    Data,
    Order,
    build_parser,
    choose_experiments,
    choose_settings,
    run_experiment,
    write_page,
)
from resnet_det.explain.lab import Lab, TrainingStoppedError
from resnet_det.explain.nets import Net
from resnet_det.explain.published import read_published
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.signals import measure_signals
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
    run_experiment(EXPERIMENTS["gradients"], toy(depths=(8, 14), iterations=1), toy_data, order)
    monkeypatch.setattr("resnet_det.explain.run._measure", lambda *_: pytest.fail("measured"))
    told = (
        r"gradients, seed 1, was measured with probes 4.*, and this command has probes 2.*: --overwrite --seeds 2 measu"
    )
    with pytest.raises(InputError, match=told):
        run("gradients", toy_data, replace(order, seeds=1, overwrite=True), toy(depths=(8, 14), iterations=1, probes=2))


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
    monkeypatch.setattr("resnet_det.explain.thousand.MEMORY_BATCH", 4)
    numbers = run("thousand", toy_data, toy_order, toy(depths=(26,), iterations=1, probes=1000))
    assert numbers["memory_batch"] == 4  # whatever the probes are
    assert numbers["agreement"] == pytest.approx(100, abs=0.1)
    check_memory(*(one["tensors"] for one in numbers["memory"]))


def test_gradients_of_checkpointing_are_compared():
    without, checkpointed = (measure_step_here(Net(8), 2, checkpointed=on) for on in (False, True))
    assert len(without.gradient) == sum(parameter.numel() for parameter in Net(8).build(10).parameters())
    assert np.abs(without.gradient).max() > 0
    np.testing.assert_allclose(checkpointed.gradient, without.gradient, atol=1e-5)
    assert checkpointed.loss == pytest.approx(without.loss, rel=1e-4)


@pytest.mark.long
def test_memory_in_a_process_of_its_own():
    check_memory(*(measure_step(Net(26), 4, checkpointed=on).tensors for on in (False, True)))


def test_what_goes_wrong_in_that_process_is_told():
    with pytest.raises(RuntimeError, match=r"Expected one of cpu, .* device type at start of device string: toaster"):
        measure_step(Net(8), 2, checkpointed=False, device="toaster")


def check_memory(without, checkpointed):
    assert checkpointed < without
    # Each of the 25 convolutions keeps its input for the backward pass, and each norm, in float32.
    kept = 2 * 4 * 4 * 8 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2)
    assert kept < without < 3 * kept


def test_few_images_go_through_a_deep_net_at_once(toy_data, toy, tmp_path, monkeypatch):
    counts = []

    def count(net, images, labels):
        counts.append(len(images))
        return measure_signals(net, images, labels)

    monkeypatch.setattr("resnet_det.explain.gradients.MAX_IMAGES", 3)
    monkeypatch.setattr("resnet_det.explain.gradients.measure_signals", count)
    settings = toy(depths=(8,), iterations=1, probes=7)
    EXPERIMENTS["gradients"].measure(Lab(toy_data, tmp_path), settings, 0)
    assert set(counts) == {3}


def test_training_images_of_few_have_their_own_number(toy_data, toy_order, toy):
    lab = Lab(toy_data, toy_order.output)
    counts = [len(lab.probe(Recipe.of(toy(images=images, test_images=9)))) for images in (4, 16, 0)]
    assert counts == [4, 9, 9]


def test_a_training_that_diverges_is_a_result(toy_data, toy, tmp_path, monkeypatch):
    compute_loss, calls = Classifier.compute_loss, []

    def diverge(self, logits, labels):
        calls.append(1)
        return compute_loss(self, logits, labels) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(Classifier, "compute_loss", diverge)
    order = Order(tmp_path, seeds=1, command="toy")
    verdict = run_experiment(EXPERIMENTS["degradation"], toy(), toy_data, order)
    told = "the training of plain-8, seed 0, diverged: its loss or its gradients were not finite at iteration 1"
    assert verdict.sentence == f"Does not show at this size: {told}."
    # It is not tried again, for other experiments neither.
    monkeypatch.setattr("resnet_det.explain.lab.train_classifier", lambda *_, **__: pytest.fail("tried again"))
    assert run_experiment(EXPERIMENTS["lesion"], toy(), toy_data, order).sentence == verdict.sentence
    assert told in write_page(tmp_path).read_text()


def test_nets_from_elsewhere_are_told_apart(toy_data, toy, tmp_path):
    """The toy classes are told apart after a few steps, with the shortcuts that a net was trained with."""
    lab = Lab(toy_data, tmp_path)
    recipe = Recipe.of(toy(iterations=30, batch=8), augment=False)
    files = {}
    for shortcut in ("none", "pad"):
        trained = lab.train(Net(14, shortcut), recipe, 0)
        files[trained.name] = trained.weights.with_name("classifier.safetensors")
    found = read_published([files["residual-14"], files["plain-14"]], toy_data, "cpu")
    assert [one.name for one in found] == ["plain-14", "residual-14"]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(files["residual-14"].read_bytes())
    with pytest.raises(InputError, match=r"classifier.safetensors .*copy.safetensors: both are residual-14; give one"):
        read_published([files["residual-14"], copy], toy_data, "cpu")


def test_nets_from_elsewhere_are_the_same_for_each_seed(toy_data, toy_order, toy, tmp_path):
    trained = Lab(toy_data, toy_order.output).train(Net(8), Recipe.of(toy()), 0)
    weights = [trained.weights.with_name("classifier.safetensors")]
    data = Data(toy_data.root)
    verdict = run_experiment(EXPERIMENTS["identity"], toy(), data, Order(tmp_path, seeds=2, weights=weights))
    assert "over 2 draws of images for the same nets" in verdict.sentence
    page = write_page(tmp_path).read_text()
    assert "0, 1, of images alone: the nets are the same ones" in page
    assert "Lines are means over draws of images, of which each goes through the same nets" in page


def test_returns_and_overfit(toy_data, toy_order, toy, tmp_path):
    detectors = [{"name": name, "gmacs": 10.0 * n, "parameters": 1e7 * n} for n, name in ((1, "R-18"), (2, "R-50"))]
    for one in detectors:
        one["ap"] = {"bbox": {"metrics": {"AP": one["gmacs"]}, "interval": {"low": 1.0, "high": 4.92}}}
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps({"detectors": detectors[::-1]}))
    numbers = run("returns", toy_data, replace(toy_order, detectors=path), toy())
    assert [round(net["parameters_m"], 3) for net in numbers["nets"]] == [0.075, 0.172]  # by hand: 74,770 and 171,986
    assert [one["name"] for one in numbers["detectors"]] == ["R-18", "R-50"]
    assert [one["deviation"] for one in numbers["detectors"]] == pytest.approx([1.0, 1.0], abs=1e-3)
    numbers = run("overfit", toy_data, toy_order, toy(depths=(8, 14), iterations=1))
    assert [net["images"] for net in numbers["nets"]] == [2] * 5 + [3] * 2 + [16] * 2
    assert [net["probed"] for net in numbers["nets"]] == [2] * 5 + [3] * 2 + [12] * 2
    assert [net["remedy"] for net in numbers["nets"]][2:5] == ["stochastic depth", "weight decay", "augmentation"]


def test_features(toy_data, toy_order, toy):
    numbers = run("features", toy_data, toy_order, toy())
    assert list(numbers["nets"][0]["accuracy"]) == ["res2", "res3", "res4"]
    assert len(numbers["nets"][0]["pictures"]) == 1 + 2
    assert all(uri.startswith("data:image/png") for row in numbers["nets"][0]["pictures"].values() for _, uri in row)


@pytest.fixture
def page_file(toy_data, toy_order, toy, tmp_path):
    """The page of some experiments; each chart takes its time."""
    for name in ("degradation", "gradients", "lesion", "features"):
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
    told = f"--data {toy_root} --output {output} --seeds 1 --probes 4 --weights {weights}"  # as it was typed
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
        (["degradation", "--images", 1, "--seeds", 1], "--images 1: 2 classes need as many images or more to train on"),
        (["degradation", "--images", -1], "--images -1: 0 for all, or more"),
        (["degradation", "--epochs", "nan"], "--epochs nan: a number above 0"),
        (["degradation", "--epochs", "inf"], "--epochs inf: a number above 0"),
        (["degradation", "--epochs", 0], "--epochs 0: a number above 0"),
        (["degradation", "--epochs=-1"], "--epochs -1: a number above 0"),
        (["degradation", "--epochs", 1, "--batch", 0], "--batch 0: 1 or more"),
        (["lesion", "--probes", 0], "--probes 0: 1 or more"),
        (["degradation", "--depths", 8], "--depths 8: degradation takes 2 or more of them"),
        (["thousand", "--depths", 8, 1202], "--depths 8 1202: thousand takes one of them"),
    ],
)
def test_wrong_input_is_told(arguments, message, toy_root, tmp_path, run_tool_here):
    done = run_tool_here("explain_resnet.py", *arguments, "--data", toy_root, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("explain_resnet: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_all_has_depths_for_those_that_compare_some(toy_data):
    args = build_parser("").parse_args(["all", "--data", "d", "--output", "o", "--depths", "8", "14"])
    depths = {one.name: choose_settings(args, one, toy_data).depths for one in choose_experiments(args)}
    assert depths.pop("thousand") == (1202,)
    assert set(depths.values()) == {(8, 14)}


def test_advice_is_of_this_tool(make_toy_images, tmp_path):
    (tmp_path / "half" / "train" / "ant").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        Data(tmp_path / "half")
    assert str(caught.value).endswith("Folders (or .tar files) train and val, or train and test, would be right")
    root = make_toy_images(tmp_path / "damaged")
    (root / "test" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png") as caught:
        Data(root).images("test")
    assert str(caught.value).endswith("Take it away, or mend it")
    assert "RESNET_DET" not in str(caught.value)


def test_other_pixels_of_the_images_drawn_are_other_data(toy_data, toy_order, toy, make_toy_images, tmp_path):
    """With one probe, the image that a seed draws is not among those that fingerprints of all seeds are of."""
    trained = Lab(toy_data, toy_order.output).train(Net(8), Recipe.of(toy()), 0)
    settings = toy(images=2, test_images=2, probes=2)
    root = make_toy_images(tmp_path / "toy_images")
    drawn, shared = (
        {one["file_name"] for one in Data(root).images("test", 2, **seed).dicts} for seed in ({"seed": 0}, {})
    )
    for weights in ((), (trained.weights.with_name("classifier.safetensors"),)):
        order = Order(tmp_path / f"out{len(weights)}", seeds=1, weights=weights)
        run_experiment(EXPERIMENTS["identity"], settings, Data(root), order)
    for name in drawn - shared:
        Image.fromarray(255 - np.asarray(Image.open(name))).save(name)
    assert drawn - shared
    with pytest.raises(InputError, match=r"seed 0, was measured with drawn test \w+, and this command has drawn test"):
        run_experiment(
            EXPERIMENTS["identity"], settings, Data(root), replace(order, output=tmp_path / "out0", weights=())
        )
    with pytest.raises(
        InputError, match=r"seed 0, was measured with .*drawn test \w+, and this command has .*drawn te"
    ):
        run_experiment(EXPERIMENTS["identity"], settings, Data(root), order)


def test_nets_from_elsewhere_need_few_training_images(toy_data, toy_order, toy, tmp_path, monkeypatch):
    trained = Lab(toy_data, toy_order.output).train(Net(8), Recipe.of(toy()), 0)
    weights = [trained.weights.with_name("classifier.safetensors")]
    data, loaded = Data(toy_data.root), []
    load = data.images

    def note(split, count=0, **more):
        loaded.append((split, count))
        return load(split, count, **more)

    monkeypatch.setattr(data, "images", note)
    for name, counts in (("lesion", set()), ("features", {4})):  # the probes
        run_experiment(EXPERIMENTS[name], toy(images=0), data, Order(tmp_path, seeds=1, weights=weights))
        assert {count for split, count in loaded if split == "train"} == counts


def test_the_page_says_how_nets_were_trained(toy_data, toy_order, toy):
    run("degradation", toy_data, toy_order, toy())
    text = write_page(toy_order.output).read_text()
    assert "2 steps of 4 images, learning rate in one cycle up to 0.00313 (rising over 15 % of the steps)" in text


def test_the_learning_rate_is_as_the_page_says(toy_data, tmp_path):
    recipe = Recipe(16, 12, 100, 128, 1)
    cfg = recipe.make_cfg(Net(8), toy_data.classes, seed=0, folder=tmp_path, device="cpu")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler, rates = build_lr_scheduler(cfg, optimizer), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert rates.index(max(rates)) == pytest.approx(15, abs=1)
    assert rates[-1] < 1e-3
