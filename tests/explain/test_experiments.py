"""Each experiment from images to numbers, at toy size."""

from __future__ import annotations

import json

import pytest

from resnet_det.errors import InputError
from resnet_det.explain import EXPERIMENTS, Data, run_experiment, write_page
from resnet_det.explain.lab import Lab, Recipe
from resnet_det.explain.nets import Net
from resnet_det.explain.verdicts import CONFIRMED, NOT_CONFIRMED, NOT_SHOWN


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


def test_what_is_there_is_not_done_again(toy_data, toy_order, toy, monkeypatch):
    run("degradation", toy_data, toy_order, toy())
    monkeypatch.setattr("resnet_det.explain.lab.train_classifier", lambda *_, **__: pytest.fail("trained again"))
    before = (toy_order.output / "results" / "degradation-seed0.json").read_bytes()
    run("degradation", toy_data, toy_order, toy())
    assert (toy_order.output / "results" / "degradation-seed0.json").read_bytes() == before
    with pytest.raises(InputError, match=r"was measured with iterations 2, and this command has iterations 3: --overw"):
        run("degradation", toy_data, toy_order, toy(iterations=3))


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
