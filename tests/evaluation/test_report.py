"""report.html in a browser: nothing is fetched, nothing goes wrong, tables sort, the gallery opens."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
from evaluation_data import random_keypoints

from resnet_det.benchmark.random_results import HEIGHT, WIDTH, random_results
from resnet_det.errors import InputError
from resnet_det.evaluation.files import evaluate_files
from resnet_det.evaluation.report import _top_confusions
from resnet_det.evaluation.text import format_analysis, format_comparison

EVIL = '<img src=x onerror=alert(1)> & "$x$".jpg'


def write(folder, content, results, name="results"):
    paths = folder / "annotations.json", folder / f"{name}.json"
    for path, data in zip(paths, (content, results), strict=True):
        path.write_text(json.dumps(data))
    return paths


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with everything in it: boxes, masks, a comparison, a gallery, and names that look like HTML."""
    folder = tmp_path_factory.mktemp("report")
    content, results = random_results(21, num_images=12)
    content["images"][0]["file_name"] = EVIL.replace("/", "")
    content["categories"][0]["name"] = "</script><b>bold $y$ & co"
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for image in content["images"]:
        noise = rng.integers(0, 255, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8)
        picture = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        (images / image["file_name"]).write_bytes(cv2.imencode(".jpg", picture)[1])
    annotations, path = write(folder, content, results)
    (folder / "other.json").write_text(json.dumps(results[::2]))
    options = {"images": images, "output": folder, "compare_with": folder / "other.json", "num_draws": 40}
    evaluate_files(annotations, path, config="MODEL: <none>", facts={"weights": "x.pth, sha256 abc"}, **options)
    return folder / "report.html"


@pytest.fixture
def open_page(browse, report):
    """The report at some width."""
    return lambda *size, **options: browse(report, *size, **options)


@pytest.mark.parametrize("scale", [99, 0.5])
def test_scores_that_are_no_probabilities_are_reported_without_calibration(tmp_path, scale):
    content, results = random_results(4, num_images=12)
    annotations, as_shares = write(tmp_path, content, results, "shares")
    percent = [{**row, "score": 1 + scale * row["score"]} for row in results]
    _, as_percent = write(tmp_path, content, percent, "percent")
    (expected, *_), _ = evaluate_files(annotations, as_shares, num_draws=20)
    (found, *_), _ = evaluate_files(annotations, as_percent, output=tmp_path / "out", num_draws=20)
    assert found.metrics == expected.metrics
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"Calibration of scores</h3>\s*<p>scores reach from [\d.]+ to [\d.]+: not calibrated", page)
    assert "Expected calibration error" not in page
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert numbers["bbox"]["calibration"]["bins"] == []


def test_without_intervals_no_page_or_terminal_shows_one(tmp_path):
    content, results = random_results(4, num_images=5)
    annotations, path = write(tmp_path, content, results)
    (tmp_path / "other.json").write_text(json.dumps(results[::2]))
    other = {"output": tmp_path / "out", "compare_with": tmp_path / "other.json"}
    analyses, comparisons = evaluate_files(annotations, path, iou_types=["bbox"], num_draws=20, **other)
    said = format_analysis(analyses[0]) + format_comparison(comparisons[0])
    assert re.search(r"bbox: AP [\d.]+, AP50 [\d.]+, AP75 [\d.]+\n\nno confidence interval: class", said)
    assert re.search(r"AP of the other run [\d.]+, which is [+-][\d.]+: no verdict, no confidence interval", said)
    assert "(nan" not in said
    assert "(+nan" not in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"\u2013 to\s+\u2013", page)


def test_skeletons_are_in_the_gallery(tmp_path):
    content, results = random_keypoints(3, num_keypoints=4, num_images=8)
    content["categories"][0] |= {"keypoints": ["nose", "left_eye", "right_eye", "tail"], "skeleton": [[1, 2], [1, 3]]}
    for image in content["images"]:
        image["file_name"] = f"{image['id']}.png"
        cv2.imwrite(str(tmp_path / image["file_name"]), np.zeros((image["height"], image["width"], 3), np.uint8))
    annotations, path = write(tmp_path, content, results)
    evaluate_files(annotations, path, images=tmp_path, output=tmp_path / "out", iou_types=["keypoints"], num_draws=20)
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r'<path class="shape (tp|fp|miss|other)" d="M[\d.-]+ [\d.-]+L', page)
    assert '<circle class="point"' in page


def test_a_page_needs_nothing_from_anywhere(report):
    text = report.read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", text)
    assert "<img src=x" not in text
    assert "</script><b>" not in text
    assert report.stat().st_size < 3e6


def test_tables_sort_on_click_by_mouse_and_keyboard(open_page):
    page = open_page()
    table = page.locator("section[data-task=bbox] table.sortable").first
    head = table.locator("th", has_text="AP50")
    column = table.locator("th").all_text_contents().index("AP50")

    def values():
        cells = table.locator(f"tbody tr td:nth-child({column + 1})")
        return [float(cell) for cell in cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")]

    unsorted = values()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(unsorted, reverse=True) != unsorted
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(unsorted)
    table.locator("th button").first.click()
    names = table.locator("tbody tr td:first-child").all_text_contents()
    assert names == sorted(names, key=str.lower, reverse=True)
    assert len(names) == 5


def test_a_class_stands_out_in_the_curves(open_page):
    page = open_page()
    section = page.locator("section[data-task=segm]")
    section.locator("td button", has_text="class 7").click()
    assert section.locator(".picked").count() == 2
    assert re.match(r"class 7: AP50 [\d.]+, AP [\d.]+", section.locator(".caption").first.text_content())


def test_the_gallery_opens_and_goes_on(open_page):
    page = open_page()
    dialog = page.locator("dialog")
    assert not dialog.is_visible()
    page.locator("#gallery ~ .pictures .open").first.click()
    assert dialog.is_visible()
    assert dialog.locator("svg use").count() == 2
    assert dialog.locator("rect.shape.fp").count() + dialog.locator("rect.shape.tp").count() > 0
    # The image is there, and is not the background of the page.
    box = dialog.locator("svg").first.bounding_box()
    assert box["width"] > 300
    pixels = cv2.imdecode(np.frombuffer(dialog.locator("svg").first.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.std() > 20
    first = dialog.locator("figcaption").text_content()
    dialog.locator(".next").click()
    assert dialog.locator("figcaption").text_content() != first
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("figcaption").text_content() == first
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_names_have_one_size_lie_in_the_picture_and_not_on_one_another(open_page, width):
    page = open_page(width, 844)
    page.locator("#gallery ~ .pictures .open").first.click()
    page.wait_for_function("document.querySelector('dialog .name').style.fontSize")
    picture = page.locator("dialog svg").first
    frame = picture.bounding_box()
    names = [name.bounding_box() for name in picture.locator(".name").all()]
    assert len(names) > 2
    for place, name in enumerate(names):
        assert 10 < name["height"] < 24  # with its outline
        assert frame["x"] - 6 <= name["x"]
        assert name["x"] + name["width"] <= frame["x"] + frame["width"] + 6
        for other in names[:place]:
            is_beside = name["x"] + name["width"] <= other["x"] + 3 or other["x"] + other["width"] <= name["x"] + 3
            assert is_beside or abs(name["y"] - other["y"]) > 9


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_is_wider_than_the_screen(open_page, width):
    page = open_page(width, 844)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("nav a").evaluate_all("links => links.map(link => link.getBoundingClientRect().height)")
    assert min(sizes) >= 24


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, scheme):
    page = open_page(390, 844, color_scheme=scheme)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colours = [page.evaluate("getComputedStyle(document.body).color")]
    texts = page.locator("#errors-bbox text, #sizes-bbox text")
    colours += texts.evaluate_all("elements => elements.map(element => getComputedStyle(element).fill)")
    assert len(colours) > 25
    for text in colours:
        assert contrast(text, back) > 7, (text, back)


def contrast(one, other):
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_it_prints(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 20_000


def test_the_numbers_are_in_the_page_and_in_evaluation_json(report):
    numbers = json.loads((report.parent / "evaluation.json").read_text())
    text = report.read_text()
    assert f"{numbers['segm']['metrics']['AP']:.1f}" in text
    assert set(numbers["bbox"]["errors"]["cost"]) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}
    assert len(numbers["bbox"]["classes"]) == 5
    assert numbers["facts"]["weights"] == "x.pth, sha256 abc"
    assert re.search(r"annotations\.json \(12 images, .*sha256 [0-9a-f]{64}", numbers["facts"]["annotations"])
    assert "hotcoco" in numbers["facts"]["versions"]
    assert "MODEL: &lt;none&gt;" in text


def test_keypoints_have_a_report_too(tmp_path):
    content, results = random_keypoints(22, num_keypoints=17)
    analyses, _ = evaluate_files(*write(tmp_path, content, results), output=tmp_path, num_draws=5)
    assert [analysis.iou_type for analysis in analyses] == ["bbox", "segm", "keypoints"]
    assert [analysis.confusion.shape for analysis in analyses] == [(2, 2), (2, 2), (0, 0)], "classes, and background"
    assert "Keypoints" in (tmp_path / "report.html").read_text()


def test_an_image_that_is_not_there_is_left_out_of_the_gallery(tmp_path, caplog):
    content, results = random_results(23, num_images=3)
    (tmp_path / "images").mkdir()
    evaluate_files(*write(tmp_path, content, results), images=tmp_path / "images", output=tmp_path, num_draws=5)
    assert "no such file; left out of the gallery" in caplog.text
    assert "<dialog" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda content, _: content.pop("categories"), {}, r"annotations.json: not in COCO format: no list under cat"),
        (lambda content, _: content["annotations"].clear(), {}, r"annotations.json: it has no annotations"),
        (lambda *_: None, {"images": "no"}, r"annotations.json: no image folder no"),
        (
            lambda content, _: [annotation.pop("segmentation") for annotation in content["annotations"]],
            {"iou_types": ["segm"]},
            r"no annotation has segmentation, which --iou-type segm asks for",
        ),
        (lambda content, _: content["annotations"][0].update(image_id=1), {}, r"no image has the id 1"),
    ],
)
def test_wrong_inputs_are_named(tmp_path, monkeypatch, change, options, message):
    monkeypatch.chdir(tmp_path)
    content, results = random_results(24, num_images=4)
    change(content, results)
    if "images" in options:
        options = {"images": tmp_path.relative_to(tmp_path) / options["images"]}
    with pytest.raises(InputError, match=message):
        evaluate_files(*write(tmp_path, content, results), **options)


def test_confusions_are_shares_of_the_objects_of_a_class():
    confusion = np.array([[5, 3, 2], [1, 8, 1], [4, 0, 0]])  # rows: what it is; the last: nothing
    assert _top_confusions(confusion, ["a", "b"]) == [("a", "b", 3, 30.0), ("b", "a", 1, 10.0)]
