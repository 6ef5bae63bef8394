"""What the page says, and how it behaves in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content
from resnet_det.evaluation.analysis import analyze
from resnet_det.evaluation.comparison import compare
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.tradeoff.accuracy import Accuracy, measure_accuracy
from resnet_det.tradeoff.cost import Cost
from resnet_det.tradeoff.run import write_tradeoff
from resnet_det.tradeoff.text import format_tradeoff
from resnet_det.tradeoff.tradeoff import Tradeoff
from resnet_det.tradeoff.verdict import find_verdict

EVIL = '</script><img src=x onerror=alert(1)> & "$x$"'
SHARES = (0.4, 0.7, 0.95, 1.0)


@pytest.fixture(scope="module")
def truth_and_runs():
    """Ground truth of 40 images, and four runs: each finds a larger share of the same detections."""
    content, results = random_results(51, num_images=40, per_image=10)
    truth = make_ground_truth(judge_content(content))
    kept = np.random.default_rng(3).random(len(results))
    runs = [[row for row, at in zip(results, kept, strict=True) if at < share] for share in SHARES]
    return truth, [make_detections(rows, truth) for rows in runs]


def make_costs(latencies):
    rounds = np.array([0.95, 1.0, 1.05])
    return [Cost(int(1e6 * (10 + ms)), 40 + ms, 5 * ms, 60 + ms, ms, tuple((ms * rounds).tolist())) for ms in latencies]


@pytest.fixture(scope="module")
def tradeoff(truth_and_runs):
    truth, runs = truth_and_runs
    names = ["R-18", "R-34", "R-50", EVIL]
    curve = [(iteration, 3.0 / iteration) for iteration in range(20, 400, 20)]
    return Tradeoff(
        names=names,
        sources=[f"output/{number}" for number in range(4)],
        costs=make_costs((10.0, 18.0, 25.0, 50.0)),
        accuracies=[measure_accuracy(truth, runs, iou_type, num_draws=60) for iou_type in ("bbox", "segm")],
        curves=[{"total_loss": curve, "bbox/AP": [(100, 3.0), (200, 9.0 + number)]} for number in range(4)],
        differences={"SOLVER.MAX_ITER": ["1", "2", "3", EVIL]},
        facts={"test set": EVIL},
        notes=["Load of the machine: 1.0 before measuring, 1.1 after."],
    )


@pytest.fixture(scope="module")
def written(tradeoff, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tradeoff")
    write_tradeoff(tradeoff, folder)
    return folder


def test_ap_and_intervals_are_those_of_the_report(truth_and_runs):
    truth, runs = truth_and_runs
    accuracy = measure_accuracy(truth, runs[:2], "bbox", num_draws=60)
    first, second = analyses = analyze(truth, runs[:2], "bbox", num_draws=60)
    for place, analysis in enumerate(analyses):
        assert accuracy.metrics[place] == pytest.approx(analysis.metrics)
        assert accuracy.interval(place) == analysis.intervals["AP"]
    expected = compare(truth, (runs[0], runs[1]), (first, second)).difference
    assert accuracy.difference(0, 1) == expected
    assert accuracy.difference(1, 0).value == -expected.value


def test_limits_are_those_that_were_asked_for(truth_and_runs):
    truth, runs = truth_and_runs
    for limit in (3, 300):
        accuracy = measure_accuracy(truth, runs[:1], "bbox", num_draws=20, max_detections=limit)
        (analysis,) = analyze(truth, runs[:1], "bbox", num_draws=20, max_detections=limit)
        assert accuracy.metrics[0] == pytest.approx(analysis.metrics)
        assert accuracy.interval(0) == analysis.intervals["AP"]
        assert f"AR{limit}" in accuracy.metrics[0]


def test_without_intervals_there_is_no_verdict_and_a_reason(tmp_path):
    content, results = random_results(51, num_images=6, per_image=10)
    truth = make_ground_truth(judge_content(content))
    runs = [make_detections(rows, truth) for rows in (results[::2], results)]
    accuracy = measure_accuracy(truth, runs, "bbox", num_draws=20)
    assert np.isnan(accuracy.interval(0).low)
    tradeoff = Tradeoff(["a", "b"], ["a", "b"], make_costs((10.0, 20.0)), accuracies=[accuracy])
    verdict = find_verdict(tradeoff)
    assert verdict.answer.startswith("No verdict, no confidence interval: class ")
    assert verdict.answer.endswith("of other images. Compared with a, it takes 2.0 times as long.")
    said = " ".join(verdict.sentences) + format_tradeoff(tradeoff, verdict)
    assert "chance" not in said
    assert "clear" not in said
    assert "nan" not in said
    assert [step.judgement for step in tradeoff.steps(accuracy)] == ["unknown"]
    write_tradeoff(tradeoff, tmp_path)
    page = (tmp_path / "tradeoff.html").read_text()
    assert "No verdict" in page
    assert ">nan<" not in page.lower()


def make_accuracy(values, half_width, task="bbox"):
    """AP of ``values``; the draws go up and down together by far more than the differences of pairs do."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 5, 400)
    draws = [value + common + rng.uniform(-half_width, half_width, 400) for value in values]
    return Accuracy(task, [{"AP": value} for value in values], np.array(draws))


def answer(values, half_width, latencies=(10.0, 20.0, 40.0), **changes):
    tradeoff = Tradeoff(["R-18", "R-50", "R-101"], ["a", "b", "c"], make_costs(latencies), **changes)
    tasks = values if isinstance(values, dict) else {"bbox": values}
    accuracies = [make_accuracy(ap, half_width, task) for task, ap in tasks.items()]
    return find_verdict(replace(tradeoff, accuracies=accuracies))


def test_the_question_is_answered_in_plain_sentences():
    verdict = answer([30.0, 36.0, 38.0], 0.5)
    assert verdict.question == "Is R-101 worth it?"
    assert verdict.answer == "Yes, at a price: it is clearly better than R-50, and takes 2.0 times as long."
    text = " ".join(verdict.reasons)
    assert re.match(r"R-101 has 38\.0 box AP, R-50 36\.0: 2\.0 more \(\+1\.\d to \+2\.\d\)\. ", text)
    assert "It takes 40.0 ms an image instead of 20.0 (2.0 times as long)." in text
    assert "That is 0.1 AP for each extra ms; from R-18 to R-50 it was 0.6." in text
    assert "R-101 is the dearest, and clearly better than each cheaper one." in text
    assert len(verdict.others) == 1
    assert verdict.others[0].startswith("R-50 has 36.0 box AP, R-18 30.0: 6.0 more")


def test_what_may_be_chance_is_said_to_be():
    verdict = answer({"bbox": [30.0, 36.0, 36.2], "segm": [28.0, 33.0, 31.0]}, 1.0)
    assert verdict.answer == (
        "Not as far as these images show: it is not clearly better than R-50, and takes 2.0 times as long."
    )
    text = " ".join(verdict.reasons)
    assert re.search(r"0\.2 more \(-1\.\d to \+1\.\d\), which may be chance\.", text)
    assert re.search(r"Mask AP: 2\.0 less \(-\d\.\d to -\d\.\d\)\.", text)
    assert "R-50 is the cheapest that no dearer one clearly beats." in text
    assert "for each extra" not in text


def test_equal_ap_and_unfinished_training_are_said():
    curves = [{"bbox/AP": [(100, 20.0), (200, last)]} for last in (20.9, 22.5, 21.2)]
    verdict = answer([30.0, 36.0, 36.04], 1.0, curves=curves)
    assert re.search(r"R-101 has 36\.0 box AP, R-50 36\.0: the same \(-1\.\d to \+1\.\d\)\. It", verdict.reasons[0])
    assert "to the last: R-50 (+2.5), R-101 (+1.2). Longer training may change the answer." in verdict.reasons[-1]
    assert "rising" not in " ".join(answer([30.0, 36.0, 38.0], 1.0, curves=[{}, {"bbox/AP": [(9, 9.0)]}, {}]).reasons)


def test_a_loss_is_one_and_equal_times_are_no_price():
    assert answer([30.0, 36.0, 33.0], 0.5).answer == ("No: it is clearly worse than R-50, and takes 2.0 times as long.")
    verdict = answer([30.0, 36.0, 38.0], 0.5, latencies=(10.0, 40.0, 40.1))
    assert verdict.answer.startswith("Yes, at a price: "), "in every round a little slower"
    costs = make_costs((10.0, 40.0, 40.1))
    noisy = replace(costs[2], rounds_ms=(37.5, 40.1, 45.0))
    tradeoff = Tradeoff(["a", "b", "c"], ["", "", ""], [*costs[:2], noisy])
    verdict = find_verdict(replace(tradeoff, accuracies=[make_accuracy([30.0, 36.0, 38.0], 0.5)]))
    assert verdict.answer == "Yes: it is clearly better than b, and is not clearly slower."
    assert "It takes 40.1 ms an image, 40.0 the other: the rounds do not tell them apart." in verdict.reasons[0]


def test_without_time_gmacs_are_the_cost_and_without_ap_there_is_no_answer():
    costs = [replace(cost, latency_ms=None, rounds_ms=()) for cost in make_costs((10.0, 20.0, 40.0))]
    tradeoff = Tradeoff(["R-18", "R-50", "R-101"], ["", "", ""], costs)
    verdict = find_verdict(tradeoff)
    assert verdict.answer == "Configs alone do not tell: they have no AP."
    assert verdict.reasons[0] == "R-101 costs 200.0 GMACs, 4.0 times as much as R-18 (50.0)."
    verdict = find_verdict(replace(tradeoff, accuracies=[make_accuracy([30.0, 36.0, 38.0], 0.5)]))
    assert "It has 200.0 GMACs instead of 100.0 (2.0 times as many)." in verdict.reasons[0]
    assert "AP for each extra GMAC;" in verdict.reasons[0]


def test_the_page_needs_nothing_and_answers_first(written, browse):
    path = written / "tradeoff.html"
    page = browse(path)
    assert page.locator("h1").text_content() == f"Is {EVIL} worth it?"
    numbers = json.loads((written / "tradeoff.json").read_text())
    shown = page.locator(".answer").text_content()
    assert numbers["answer"][0] == f"Is {EVIL} worth it? {shown}"
    assert numbers["answer"][1] in page.locator(".answer + p").text_content()
    first = page.evaluate("document.querySelector('.answer').getBoundingClientRect().top")
    assert first < 200
    # 2 kinds of evaluation: 3 fronts and 1 chart of returns each; AP and loss.
    assert page.locator("svg.chart").count() == 2 * 4 + 2
    assert page.locator("svg path").count() > 50
    assert path.stat().st_size < 1e6


def test_its_tables_sort_and_have_the_numbers(written, tradeoff, browse):
    page = browse(written / "tradeoff.html")
    table = page.locator("table.sortable").first
    names = table.locator("tbody tr td:first-child")
    assert names.all_text_contents() == ["R-18", "R-34", "R-50", EVIL]
    table.locator("th", has_text="ms an image").locator("button").click()
    assert names.all_text_contents() == [EVIL, "R-50", "R-34", "R-18"]
    cells = table.locator("tbody tr").first.locator("td").all_text_contents()
    interval = tradeoff.accuracies[0].interval(3)
    assert cells[1:4] == [f"{value:.1f}" for value in (interval.value, interval.low, interval.high)]
    assert cells[7:12] == ["50.0", "47.5", "52.5", "250.0", "60.0"]


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (390, "light"), (1280, "dark")])
def test_it_fits_the_screen(written, browse, width, scheme):
    page = browse(written / "tradeoff.html", width, 844, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.locator("svg.chart text").evaluate_all("all => all.map(one => getComputedStyle(one).fill)")
    assert set(colours) == {page.evaluate("getComputedStyle(document.body).color")}


def test_the_numbers_are_in_json(written, tradeoff):
    numbers = json.loads((written / "tradeoff.json").read_text())
    assert numbers["ordered_by"] == "latency_ms"
    assert [one["name"] for one in numbers["detectors"]] == list(tradeoff.names)
    assert numbers["detectors"][2]["ap"]["segm"]["metrics"] == pytest.approx(tradeoff.accuracies[1].metrics[2])
    boxes = numbers["comparisons"]["bbox"]
    assert len(boxes["steps"]) == 3
    assert len(boxes["paired_differences"]) == 6
    first = boxes["steps"][0]
    assert first["ap_per_extra"]["value"] == pytest.approx(first["ap"]["value"] / 8.0)
    assert boxes["pareto_front"][0] == "R-18"


def test_a_terminal_gets_the_same(tradeoff):
    lines = format_tradeoff(tradeoff, find_verdict(tradeoff)).splitlines()
    assert lines[2].startswith("R-18 ")
    assert re.search(r"18\.0 +17\.1 - 18\.9 +90\.0 +28\.0 +78\.0$", lines[3])
    assert any(line.startswith(f"Is {EVIL} worth it?") for line in lines)
