"""gallery.html in a browser: nothing is fetched or goes wrong, pictures and videos open, filters and order work."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from resnet_det.visualization.album import Album
from resnet_det.visualization.gallery import KINDS
from resnet_det.visualization.video import VideoWriter

EVIL = '<img src=x onerror=alert(1)> & "it\'s" #1?'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """An album of three pictures and a video, with names that look like HTML."""
    folder = tmp_path_factory.mktemp("album")
    album = Album(folder)
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    album.add_picture(picture, "b", title=EVIL, counts={"cat": 2, EVIL: 1}, best_score=0.75)
    album.add_picture(picture[:, :150], EVIL.replace("/", ""), title="tall", counts={"cat": 1}, best_score=0.95)
    album.add_picture(picture, "b", title="empty", counts={})
    video = album.new_path("clip", ".mp4")
    with VideoWriter(video, 10) as writer:
        for _ in range(3):
            writer.write(picture)
    album.add_video(video, picture, title="clip.avi", counts={"dog": 4}, note="at most at once, 3 frames")
    assert [path.name for path in album.paths] == ["b.png", EVIL + ".png", "b-2.png", "clip.mp4"]
    return album.write_page(f"Pictures {EVIL}", "four of them", kinds=KINDS)


def shown(page):
    return page.locator(".entries a:visible b").all_text_contents()


def test_pictures_are_there_with_what_is_on_them(browse, page_file):
    page = browse(page_file, beside=True)
    assert page.locator("h1").text_content() == f"Pictures {EVIL}"
    assert shown(page) == [EVIL, "tall", "empty", "clip.avi"]
    widths = page.locator(".entries img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [400, 150, 400, 400]
    captions = [" ".join(text.split()) for text in page.locator("figcaption").all_text_contents()]
    assert captions[0] == f"{EVIL} 2 cat, 1 {EVIL} · best 0.75"
    assert captions[2:] == ["empty nothing", "clip.avi 4 dog · at most at once, 3 frames"]
    colour = page.locator(".key rect.miss").evaluate("rect => getComputedStyle(rect).stroke")
    assert colour == "rgb(86, 180, 233)"


def test_class_and_order_are_chosen(browse, page_file):
    page = browse(page_file, beside=True)
    page.locator("#class").select_option("cat")
    assert shown(page) == [EVIL, "tall"]
    assert page.locator("#shown").text_content() == "2 of 4 shown"
    page.locator("#order").select_option("few")
    assert shown(page) == ["tall", EVIL]
    page.locator("#class").select_option(EVIL)
    assert shown(page) == [EVIL]
    page.locator("#class").select_option("")
    page.locator("#order").select_option("sure")
    assert shown(page) == ["tall", EVIL, "empty", "clip.avi"]


def test_wide_pictures_have_the_width_of_a_phone(browse, tmp_path):
    album = Album(tmp_path)
    for stem in "abc":
        album.add_picture(np.zeros((300, 1000, 3), np.uint8), stem, title=stem, counts={})
    page = browse(album.write_page("wide"), 390, 844, beside=True)
    box = page.locator(".entries img").first.bounding_box()
    assert box["width"] == pytest.approx(390 - 2 * 16, abs=1)
    assert box["height"] == pytest.approx(box["width"] / 3, abs=1), "at most three times as wide as high"


def test_pictures_open_one_after_the_other(browse, page_file):
    page = browse(page_file, beside=True)
    dialog = page.locator("dialog")
    page.locator(".entries a").nth(1).click()
    assert dialog.locator("img").evaluate("image => image.decode().then(() => image.naturalHeight)") == 300
    assert dialog.locator(".what").text_content().startswith("tall: 1 cat · best 0.95")
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("img").get_attribute("alt") == EVIL
    dialog.locator(".previous").click()
    assert dialog.locator("video").get_attribute("src").endswith("/clip.mp4")
    assert dialog.locator("a").get_attribute("href") == dialog.locator("video").get_attribute("src")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    expect(dialog.locator("video")).to_have_count(0)  # it no longer plays


@pytest.mark.parametrize(("width", "columns"), [(320, 2), (390, 2), (1280, 4)])
def test_no_page_is_wider_than_the_screen(browse, page_file, width, columns):
    page = browse(page_file, width, 844, beside=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lefts = page.locator(".entries a").evaluate_all("links => links.map(link => link.getBoundingClientRect().left)")
    assert len(set(lefts)) == columns
    page.locator(".entries a").first.click()
    page.locator("dialog img").evaluate("image => image.decode()")
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    pixels = cv2.imdecode(np.frombuffer(page.locator("dialog img").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.std() > 20
