"""Fixtures for all tests. Everything runs on the CPU, seeded, and on data that are made here."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from PIL import Image
from playwright.sync_api import sync_playwright

from resnet_det import add_resnet_det_config
from resnet_det.data import make_demo_data
from resnet_det.data.demo import SPLITS, write_split
from resnet_det.images import settings
from resnet_det.images.image_input import ImageInput

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
CHROMIUM_FLAGS += ["--disable-component-update", "--disable-sync", "--no-sandbox"]
SHARED_DATA = Path(os.getenv("RESNET_DET_SHARED_DATA", ROOT.parent / "shared" / "data"))

torch.set_num_threads(1)  # tests run in several processes


def pytest_collection_finish():
    """Exempt what imports have made from garbage collection, which otherwise takes 5 % of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _images_as_by_default(monkeypatch):
    """Tools set for the process how images are read."""
    monkeypatch.setattr(settings, "image_input", ImageInput())


@pytest.fixture(autouse=True)
def _quiet_loggers():
    """Detectron2 sets up loggers that outlive a test: take their handlers away again."""
    yield
    for name in ("detectron2", "fvcore", "resnet_det"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


@pytest.fixture
def default_cfg() -> CfgNode:
    """Detectron2's defaults and our keys, on the CPU, without weights."""
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    return cfg


@pytest.fixture
def run_tool_here(request, monkeypatch, capsys):
    """In this process, for what is done at once: each process of its own would import torch again."""

    def run(name, *args):
        monkeypatch.chdir(request.config.rootpath)
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(request.config.rootpath / "tools" / name), run_name="__main__")
        torch.set_num_threads(1)  # the benchmarks take all
        return subprocess.CompletedProcess(sys.argv, stopped.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory) -> Path:
    """The demo data, made once for all tests of this process."""
    return make_demo_data(tmp_path_factory.mktemp("demo") / "resnet_det_demo")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> dict[str, tuple[str, str]]:
    """Annotation file and image folder of the first images of the demo data: 8 to train on and 4 to test on."""
    folder = tmp_path_factory.mktemp("small")
    splits = {}
    for split, num_images in (("train", 8), ("val", 4)):
        _, seed = SPLITS[split]
        write_split(folder, split, num_images, seed)
        path = (folder / "annotations" / f"instances_{split}.json").rename(folder / f"small_{split}.json")
        splits[split] = (str(path), str(folder / split))
    return splits


@pytest.fixture
def coco_files(tmp_path) -> tuple[Path, Path]:
    """A sound COCO data set of two images, to be damaged by a test: its annotation file and image folder."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.randint(0, 255, (48, 64, 3), dtype=np.uint8)).save(images / name)
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 48, "width": 64},
            {"id": 2, "file_name": "b.png", "height": 48, "width": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 16], "area": 320, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [8, 6, 30, 30], "area": 900, "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path = tmp_path / f"{tmp_path.name}.json"
    path.write_text(json.dumps(content))
    return path, images


@pytest.fixture
def shared_data():
    """Real data beside the checkout; a test that needs them says so where they are not."""

    def find(name: str) -> Path:
        if not (SHARED_DATA / name).is_dir():
            pytest.skip(f"no {name} in {SHARED_DATA} (set RESNET_DET_SHARED_DATA to run this test)")
        return SHARED_DATA / name

    return find


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = os.getenv("RESNET_DET_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert executable, "no Chromium: tools/install_chromium.py installs it as root; or name one in RESNET_DET_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def browse(browser):
    """Open a file at some width; at the end there must have been no request but for it, and no message.

    With ``beside`` the page may ask for other files of its folder.
    """
    contexts, opened, requests, messages = [], set(), set(), []
    allowed = ["data:"]

    def open_at(path, width=1280, height=900, *, beside=False, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        opened.add(path.as_uri())
        allowed.extend([path.parent.as_uri() + "/"] if beside else [])
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.add(request.url))
        page.on("requestfailed", lambda request: messages.append(f"{request.url} failed"))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert messages == []
    assert {url for url in requests if not url.startswith(tuple(allowed))} <= opened <= requests
