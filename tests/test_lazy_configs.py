"""Every LazyConfig in configs/lazy builds, and is the model of its yaml twin; one is trained."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from models import make_inputs
from omegaconf import OmegaConf

from resnet_det import add_resnet_det_config
from resnet_det.data import make_train_loader
from resnet_det.engine import load_lazy_config
from resnet_det.engine.lazy import _build_train_loader, _count_images, _name_target
from resnet_det.errors import InputError

ROOT = Path(__file__).resolve().parent.parent / "configs"
CONFIGS = sorted(str(path.relative_to(ROOT / "lazy")) for path in ROOT.glob("lazy/[!c]*/*.py"))


def yaml_twin(name):
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.merge_from_file(str(ROOT / name.replace(".py", ".yaml")))
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = "cpu", 16
    return cfg


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * ("R_34" in name or "101" in name)) for name in CONFIGS]
)
def test_lazy_config_builds_and_runs(name):
    lazy = LazyConfig.load(str(ROOT / "lazy" / name))
    if "roi_heads" in lazy.model:
        lazy.model.roi_heads.batch_size_per_image = 16
    torch.manual_seed(0)
    model = instantiate(lazy.model)
    cfg = yaml_twin(name)
    inputs = make_inputs(cfg, ((64, 96), (80, 64)))
    torch.manual_seed(1)  # proposals and anchors are sampled
    with EventStorage():
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert instantiate(lazy.lr_multiplier)(0.99) == pytest.approx(0.01)
    twin = build_model(cfg)
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, twin)]
    assert shapes[0] == shapes[1]
    twin.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    with EventStorage():
        expected = twin.train()(inputs)
    for key, loss in expected.items():
        torch.testing.assert_close(losses[key], loss, rtol=1e-4, atol=1e-5)
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.dataloader.train.mapper.image_format == cfg.INPUT.FORMAT
    assert lazy.dataloader.train.mapper.use_instance_mask == cfg.MODEL.MASK_ON
    assert lazy.optimizer.lr == cfg.SOLVER.BASE_LR


@pytest.fixture
def lazy_data(small_data):
    for split, files in small_data.items():
        register_coco_instances(f"lazy_{split}", {}, *files)
    yield
    for split in small_data:
        DatasetCatalog.remove(f"lazy_{split}")
        MetadataCatalog.remove(f"lazy_{split}")


@pytest.mark.usefixtures("lazy_data")
def test_training_and_evaluation(run_tool_here, tmp_path):
    config = ["--config-file", ROOT / "lazy/COCO-Detection/faster_rcnn_R_18_FPN_1x.py"]
    pairs = [
        "train.max_iter=3",
        "train.checkpointer.max_to_keep=null",
        "train.init_checkpoint=",
        f"train.output_dir={tmp_path / 'out'}",
        "model.roi_heads.num_classes=6",
        "model.roi_heads.batch_size_per_image=64",
        "model.proposal_generator.post_nms_topk=[100,50]",
    ]
    pairs += ["dataloader.train.dataset.names=lazy_train", "dataloader.test.dataset.names=lazy_val"]
    pairs += ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0", "dataloader.train.total_batch_size=2"]
    pairs += ["dataloader.train.mapper.augmentations.0.short_edge_length=96", "model.backbone.bottom_up.norm=GN"]
    pairs += ["dataloader.test.mapper.augmentations.0.short_edge_length=96"]

    def run(*args):
        return run_tool_here("lazyconfig_train_net.py", *config, *args)

    assert run(*pairs, "train.checkpointer.period=1").returncode == 0
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox"}
    assert not list((tmp_path / "out").glob("profile_*")), "as train.profile is not set"
    kept = {path.name for path in (tmp_path / "out").glob("model_0*.pth")}
    assert kept == {"model_0000000.pth", "model_0000001.pth"}
    final = tmp_path / "out" / "model_final.pth"
    whole = torch.load(final, weights_only=True)["model"]
    final.unlink()
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000000.pth")
    saved = shutil.copy(tmp_path / "out" / "config.yaml", tmp_path)
    assert run_tool_here("lazyconfig_train_net.py", "--config-file", saved, "--resume").returncode == 0
    again = torch.load(final, weights_only=True)["model"]
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    used = run(*pairs)
    assert used.returncode == 2
    assert "out holds a run: --resume goes on with it" in used.stderr
    saved = torch.load(final, weights_only=True)
    assert saved["run"] == json.loads((tmp_path / "out" / "run.json").read_text())["id"]
    weights = f"train.init_checkpoint={tmp_path / 'out' / 'model_final.pth'}"
    (tmp_path / "out" / "results.json").unlink()
    assert run("--eval-only", *pairs, weights).returncode == 0
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox"}
    other = run("--eval-only", *pairs, weights, "model.backbone.bottom_up.depth=34")
    assert other.returncode == 2
    assert "this file is a ResNet-18, the config says 34" in other.stderr


def _make_mapper():
    return dict


def test_a_resumed_run_with_accumulation_has_the_batches_that_were_left():
    dataset = [{"file_name": str(number), "width": 4, "height": 4} for number in range(9)]
    train = LazyCall(make_train_loader)(dataset=dataset, mapper=LazyCall(_make_mapper)(), total_batch_size=2)
    for cfg in ({"accumulate": 2}, {}):
        cfg = OmegaConf.create({"train": cfg}, flags={"allow_objects": True})
        cfg.dataloader = {"train": train}
        accumulate = cfg.train.get("accumulate", 1)
        whole = list(islice(_build_train_loader(cfg, 3, 0), 12))
        assert list(islice(_build_train_loader(cfg, 3, 4), 12 - 4 * accumulate)) == whole[4 * accumulate :]
        assert _count_images(cfg) == 2 * accumulate


def test_wrong_input():
    with pytest.raises(InputError, match="no such file"):
        load_lazy_config("no.py", [])
    with pytest.raises(InputError, match="key=value pairs expected"):
        load_lazy_config(str(ROOT / "lazy" / CONFIGS[0]), ["SOLVER.MAX_ITER", "2"])


def test_optimizers_have_the_same_name_in_each_process():
    assert _name_target({"_target_": "torch.optim.SGD"}) == _name_target({"_target_": torch.optim.SGD})
    assert _name_target({"_target_": _make_mapper}) == f"{_make_mapper.__module__}._make_mapper"
