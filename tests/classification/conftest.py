"""Small images by class, and a classifier of a few numbers."""

from __future__ import annotations

import pytest
from labelled_images import SMALL_SQUARES, TINY, write_images

from resnet_det.classification import make_classification_cfg


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of train (18 images) and test (12) of six classes."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "train")
    write_images(root / "test", per_class=2, seed=1)
    return root


@pytest.fixture
def make_cfg(photos, tmp_path):
    def make(*opts, out="out"):
        data = ["DATASETS.TRAIN", (str(photos / "train"),), "DATASETS.TEST", (str(photos / "test"),)]
        fixed = [*TINY, *SMALL_SQUARES, *data, "OUTPUT_DIR", str(tmp_path / out)]
        return make_classification_cfg("", [*fixed, *opts])

    return make
