"""The recipes in configs/ImageNet-Classification: each is right, builds, and makes a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from resnet_det.classification import build_classifier, make_classification_cfg
from resnet_det.classification.augmentation import build_test_transform, build_train_transform
from resnet_det.config import check_classification_cfg
from resnet_det.engine.epochs import set_length_in_epochs_
from resnet_det.engine.initial_weights import check_from_scratch
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "ImageNet-Classification").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_is_right_and_makes_a_step(path):
    cfg = make_classification_cfg(str(path), ["MODEL.DEVICE", "cpu", "RESNET_DET.CLASSES.NAMES", list("abcdef")])
    assert check_classification_cfg(cfg) + check_from_scratch(cfg) == []
    keys = cfg.RESNET_DET.CLASSIFICATION
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    for transform, size in ((build_train_transform, keys.SIZE_TRAIN), (build_test_transform, keys.SIZE_TEST)):
        shown = transform(cfg)(image)
        assert shown.shape == (3, size, size)
        assert shown.dtype == torch.uint8
    if cfg.MODEL.RESNETS.DEPTH == 50 and not cfg.MODEL.RESNET_DET.STAGE_BLOCKS:
        cfg.MODEL.RESNETS.DEPTH = 10  # what is left of the recipe is the same
    model = build_classifier(cfg)
    optimizer = build_optimizer(cfg, model)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with EventStorage():
        model.train()([{"image": images, "label": torch.arange(4)}])["loss_cls"].backward()
    before = model.backbone.linear.weight.clone()
    optimizer.step()
    assert not torch.equal(model.backbone.linear.weight, before)


def rates(name, images):
    """The learning rate at the start of each epoch."""
    (path,) = [path for path in CONFIGS if path.stem == name]
    cfg = make_classification_cfg(str(path))
    set_length_in_epochs_(cfg, lambda: images)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    per_epoch, found = images / cfg.SOLVER.IMS_PER_BATCH, []
    for iteration in range(cfg.SOLVER.MAX_ITER):
        if iteration >= len(found) * per_epoch:
            found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_epochs_are_those_of_the_recipes():
    found = rates("R_50_90e", images=2560)
    assert len(found) == 90
    assert (found[0], found[29], found[31], found[61]) == pytest.approx((0.1, 0.1, 0.01, 0.001))
    found = rates("R_50_torchvision_v2", images=10240)
    assert len(found) == 600
    assert found[0] == pytest.approx(0.005)
    assert found[5] == pytest.approx(0.5, rel=1e-3)
    assert found[300] == pytest.approx(0.25, rel=1e-2)
    assert found[599] < 1e-4
