"""Images of two classes that a small net tells apart: one is bright on top, one below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from resnet_det.explain import Data, Order
from resnet_det.explain.settings import Settings

TOY = Settings((8, 14), images=16, test_images=12, iterations=2, batch=4, evaluations=2, probes=4)


def write_toy_images(root, counts=(("train", 10), ("test", 8))):
    rng = np.random.default_rng(0)
    for split, count in counts:
        for number, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(count):
                pixels = rng.integers(0, 160, (32, 32, 3), dtype=np.uint8)
                pixels[16 * number : 16 * number + 16] += 90
                Image.fromarray(pixels).save(folder / f"{place}.png")
    return root


@pytest.fixture(scope="session")
def make_toy_images():
    return write_toy_images


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    return write_toy_images(tmp_path_factory.mktemp("toy") / "toy_images")


@pytest.fixture(scope="session")
def toy_data(toy_root):
    return Data(toy_root)


@pytest.fixture(scope="session")
def toy_order(tmp_path_factory):
    """One folder for all experiments, which share its nets."""
    return Order(tmp_path_factory.mktemp("explained") / "out", seeds=1, command="tools/explain_resnet.py toy")


@pytest.fixture(scope="session")
def toy():
    def change(**changes):
        return replace(TOY, **changes)

    return change
