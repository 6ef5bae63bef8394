"""A classifier from images to weights that a detector takes; a run that is killed is the run that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_images import CLASSES, write_images
from safetensors import safe_open
from torch import nn
from training import assert_same_run, final_state

from resnet_det import make_resnet
from resnet_det.classification import (
    Classifier,
    build_classifier,
    build_test_loader,
    evaluate_classifier,
    load_images,
    make_classification_cfg,
    train_classifier,
)
from resnet_det.classification.run import ClassificationRun
from resnet_det.config import merge_cfg
from resnet_det.engine.initial_weights import prepare_weights
from resnet_det.errors import InputError
from resnet_det.weights import TRAINED_WITH, convert_weights, find_conventions, load_weights, read_tensors

EVERYTHING = ["RESNET_DET.CLASSIFICATION.MIXUP", 0.2, "RESNET_DET.CLASSIFICATION.CUTMIX", 1.0]
EVERYTHING += ["RESNET_DET.TRAIN.EMA_DECAY", 0.9, "RESNET_DET.TRAIN.ACCUMULATE", 2]
EVERYTHING += ["RESNET_DET.CLASSIFICATION.LABEL_SMOOTHING", 0.1, "MODEL.RESNET_DET.STOCHASTIC_DEPTH", 0.3]
EVERYTHING += ["RESNET_DET.TRAIN.BEST_METRIC", "classification/top1_error"]
WITH_LAMB = [*EVERYTHING, "RESNET_DET.TRAIN.OPTIMIZER", "LAMB"]
WITH_LAMB += ["RESNET_DET.CLASSIFICATION.LOSS", "binary_cross_entropy"]
OF_FILES = [*EVERYTHING, "RESNET_DET.CLASSIFICATION.MEMORY_MIB", 0, "DATALOADER.NUM_WORKERS", 1]
OF_FILES += ["RESNET_DET.CLASSIFICATION.AUTO_AUGMENT", "randaugment", "RESNET_DET.CLASSIFICATION.REPEATS", 2]


def train_and_be_killed(cfg, iteration, resume, number):
    """Trains up to an iteration, and there the process gets a signal: SIGKILL is an out-of-memory killer's."""
    torch.set_num_threads(1)
    run_step = ClassificationRun.run_step

    def step(self):
        if self.iter == iteration:
            os.kill(os.getpid(), number)
        run_step(self)

    ClassificationRun.run_step = step
    train_classifier(cfg, resume=resume)


def kill_at(cfg, iteration, *, resume, number=signal.SIGKILL):
    arguments = (cfg, iteration, resume, number)
    # Not forked: torch refuses gradients in a fork of a process that has had autograd threads.
    child = multiprocessing.get_context("spawn").Process(target=train_and_be_killed, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == (-number if number == signal.SIGKILL else 0)
    if number == signal.SIGTERM:
        assert Path(cfg.OUTPUT_DIR, f"model_{iteration:07d}.pth").is_file()


def assert_killed_runs_are_the_whole_one(make_cfg, tmp_path, opts, kills):
    whole = train_classifier(make_cfg(*opts, out="whole"))
    cfg = make_cfg(*opts, out="parts")
    for number, (iteration, signum) in enumerate(kills):
        kill_at(cfg, iteration, resume=number > 0, number=signum)
    assert not Path(cfg.OUTPUT_DIR, "model_final.pth").exists()
    assert train_classifier(cfg, resume=True) == whole
    assert_same_run(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    for name in ("classifier.safetensors", "model_best.pth"):
        ours, theirs = (read_tensors(tmp_path / out / name) for out in ("whole", "parts"))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items()), name


def test_a_killed_run_that_is_resumed_is_the_run_that_was_not(make_cfg, tmp_path):
    assert_killed_runs_are_the_whole_one(make_cfg, tmp_path, EVERYTHING, [(3, signal.SIGKILL), (4, signal.SIGTERM)])


@pytest.mark.long
@pytest.mark.parametrize("opts", [EVERYTHING, WITH_LAMB, OF_FILES], ids=["sgd", "lamb", "files"])
def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(make_cfg, tmp_path, opts):
    opts = [*opts, "SOLVER.MAX_ITER", 24, "SOLVER.CHECKPOINT_PERIOD", 2]
    assert_killed_runs_are_the_whole_one(
        make_cfg, tmp_path, opts, [(place, signal.SIGKILL) for place in (1, 3, 4, 5, 9, 10, 17, 23)]
    )


def test_a_run_leaves_results_and_weights(make_cfg, tmp_path):
    cfg = make_cfg("RESNET_DET.TRAIN.EMA_DECAY", 0.5)
    results = train_classifier(cfg)
    assert results["classification"].keys() == {"top1_error", "top5_error", "loss"}
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["classification"] == results["classification"]
    assert written["facts"]["trained on"] == {cfg.DATASETS.TRAIN[0]: {"images": 18, "classes": 6}}
    assert cfg.RESNET_DET.CLASSES.NAMES == [], "the caller's config stays"
    kept = merge_cfg(str(tmp_path / "out" / "config.yaml"), [])
    assert tuple(kept.RESNET_DET.CLASSES.NAMES) == CLASSES
    model = build_classifier(kept)
    assert not load_weights(model, tmp_path / "out" / "classifier.safetensors").missing
    averaged = torch.load(tmp_path / "out" / "model_final_ema.pth", weights_only=True)["model"]
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in model.state_dict().items())
    assert evaluate_classifier(model, build_test_loader(kept, load_images(kept, "test"))) == results["classification"]
    with pytest.raises(InputError, match="holds a run: --resume goes on with it"):
        train_classifier(cfg)
    assert train_classifier(cfg, overwrite=True) == results


class Fixed(nn.Module):
    """Gives logits by the number that is an image's first pixel."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, batch):
        return self.logits[torch.cat([entry["image"][:, 0, 0, 0] for entry in batch]).long()]


def test_errors_and_loss_are_those_of_another_computation():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 9)), generator.integers(0, 9, 50)
    images = np.arange(50, dtype=np.float32)[:, None, None, None]
    batches = [
        [{"image": torch.tensor(images[part]), "label": torch.tensor(labels[part])}]
        for part in (slice(0, 20), slice(20, 27), slice(27, 50))
    ]
    model = Fixed(torch.tensor(logits)).train()
    found = evaluate_classifier(model, batches)
    assert model.training
    places = [sum(row > row[label]) for row, label in zip(logits, labels, strict=True)]
    exponentials = np.exp(logits)
    chances = (exponentials / exponentials.sum(1, keepdims=True))[np.arange(50), labels]
    assert found == pytest.approx(
        {
            "top1_error": 100 * np.mean([place >= 1 for place in places]),
            "top5_error": 100 * np.mean([place >= 5 for place in places]),
            "loss": -np.log(chances).mean(),
        },
        rel=1e-5,
    )
    few = evaluate_classifier(
        Fixed(torch.tensor(logits[:, :5])), [[{**batches[0][0], "label": torch.zeros(20).long()}]]
    )
    assert few.keys() == {"top1_error", "loss"}
    with pytest.raises(InputError, match="no images"):
        evaluate_classifier(model, [])


def make_classifier(**options):
    return Classifier(nn.Identity(), 4, pixel_mean=[0.0], pixel_std=[1.0], **options)


def test_losses_are_those_of_another_computation():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    logs = logits - logits.exp().sum(1, keepdim=True).log()
    targets = torch.full((5, 4), 0.1 / 4)
    targets[range(5), labels] += 0.9
    smoothed = make_classifier(label_smoothing=0.1).compute_loss(logits, labels)
    assert smoothed == pytest.approx(float(-(targets * logs).sum(1).mean()), rel=1e-5)
    shares = torch.tensor([[0.3, 0.7, 0, 0], [0.9, 0.1, 0, 0], [0, 1.0, 0, 0], [0, 0, 0.5, 0.5], [0.2, 0.8, 0, 0]])
    present = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]])
    chance = 1 / (1 + (-logits).exp())
    expected = -(present * chance.log() + (1 - present) * (1 - chance).log()).mean()
    found = make_classifier(loss="binary_cross_entropy").compute_loss(logits, shares)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_mixed_images_have_the_classes_of_what_they_show():
    """An image of value v has the class v: the mean of what is shown is that of the classes."""
    seen = {}

    class Spy(nn.Module):
        def forward(self, images):
            seen["images"] = images
            return {"linear": torch.zeros(len(images), 4)}

    for options in ({"mixup": 1.0}, {"cutmix": 1.0}):
        model = Classifier(Spy(), 4, pixel_mean=[0.0], pixel_std=[1.0], **options)
        model.compute_loss = lambda logits, shares: seen.update(shares=shares) or logits.sum()
        labels = torch.tensor([0, 1, 2, 3])
        images = labels.view(4, 1, 1, 1).expand(4, 1, 64, 64).to(torch.uint8)
        model.train()([{"image": images, "label": labels}])
        shown = seen["images"].mean(dim=(1, 2, 3))
        assert torch.allclose(shown, seen["shares"].float() @ torch.arange(4.0), atol=1e-5)
        assert len(shown.unique()) == 4
        assert not torch.equal(shown, labels.float())
        model.eval()([{"image": images, "label": labels}])
        assert torch.equal(seen["images"], images.float()), "in tests nothing is mixed"


def test_a_backbone_of_ones_own_is_trained(make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 2)
    shape = {"stem": "3x3", "stem_out_channels": 4, "res2_out_channels": 4}
    net = make_resnet(block="basic", stage_blocks=(1,), num_classes=6, **shape)
    before = net.linear.weight.clone()
    data = {f"{split}_set": load_images(cfg, split) for split in ("train", "test")}
    results = train_classifier(cfg, backbone=net, **data)
    assert not torch.equal(net.linear.weight, before)
    loader = build_test_loader(cfg, data["test_set"])
    cfg.RESNET_DET.CLASSES.NAMES = list(CLASSES)
    assert evaluate_classifier(build_classifier(cfg, backbone=net), loader) == results["classification"]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda: make_resnet(10, num_classes=5), r"logits \(1, 5\) for an image, and the data have 6 classes"),
        (lambda: make_resnet(10), r'gives res2, res3, res4, res5, and no "linear".*num_classes=6'),
        (lambda: nn.Conv2d(3, 6, 1), 'gives Tensor, and no "linear"'),
    ],
)
def test_a_backbone_without_a_head_for_the_classes_is_refused(make_cfg, backbone, message):
    cfg, net = make_cfg("RESNET_DET.CLASSES.NAMES", list(CLASSES)), backbone()
    net.eval()
    with pytest.raises(InputError, match=message):
        build_classifier(cfg, backbone=net)
    assert not any(module.training for module in net.modules()), "its mode stays"


def test_a_backbone_without_a_head_is_refused_before_a_run_is_deleted(make_cfg, tmp_path):
    cfg = make_cfg("SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())
    train_classifier(cfg)
    with pytest.raises(InputError, match="data have 6 classes"):
        train_classifier(cfg, overwrite=True, backbone=make_resnet(10, num_classes=5))
    assert (tmp_path / "out" / "model_final.pth").is_file()


def test_a_resumed_run_has_the_keys_that_were_matched(make_cfg, tmp_path):
    train_classifier(make_cfg("INPUT.FORMAT", "BGR", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", (), out="first"))
    opts = ["MODEL.WEIGHTS", str(tmp_path / "first" / "classifier.safetensors"), "MODEL.RESNET_DET.MATCH_WEIGHTS", True]
    for iterations in (1, 2):
        train_classifier(make_cfg(*opts, "SOLVER.MAX_ITER", iterations, "DATASETS.TEST", ()), resume=True)
    assert find_conventions(tmp_path / "out" / "classifier.safetensors").channel_order == "BGR"


def test_a_test_set_that_is_given_is_one_to_be_best_on(make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 1, "RESNET_DET.TRAIN.BEST_METRIC", "classification/top1_error")
    test_set = load_images(cfg, "test")
    cfg.DATASETS.TEST = ()
    assert "top1_error" in train_classifier(cfg, test_set=test_set)["classification"]


def test_a_length_that_would_not_be_followed_is_refused():
    with pytest.raises(InputError, match=r"SOLVER.MAX_ITER is scaled to the length of RESNET_DET.TRAIN.EPOCHS 90"):
        make_classification_cfg("", ["SOLVER.MAX_ITER", 1000])
    cfg = make_classification_cfg("", ["SOLVER.MAX_ITER", 1000, "RESNET_DET.TRAIN.EPOCHS", 0])
    assert cfg.SOLVER.MAX_ITER == 1000


def test_a_best_metric_that_few_classes_do_not_have_is_refused_at_the_start(make_cfg, tmp_path):
    for split, seed in (("train", 0), ("test", 1)):
        write_images(tmp_path / split, classes=CLASSES[:3], seed=seed)
    cfg = make_cfg("RESNET_DET.TRAIN.BEST_METRIC", "classification/top5_error")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (str(tmp_path / "train"),), (str(tmp_path / "test"),)
    with pytest.raises(InputError, match="top5_error, which 3 classes do not have"):
        train_classifier(cfg)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(make_cfg, dtype):
    opts = ["SOLVER.AMP.ENABLED", True, "RESNET_DET.TRAIN.AMP_DTYPE", dtype, "RESNET_DET.TEST.AMP", True]
    results = train_classifier(make_cfg(*opts, "SOLVER.MAX_ITER", 2, "RESNET_DET.CLASSIFICATION.MIXUP", 0.2))
    assert results["classification"]["loss"] < 100


def detector_cfg(weights, *opts):
    cfg = merge_cfg("configs/COCO-Detection/faster_rcnn_R_18_FPN_1x.yaml", ["MODEL.WEIGHTS", str(weights), *opts])
    cfg.MODEL.RESNET_DET.STAGE_BLOCKS, cfg.MODEL.RESNET_DET.BLOCK, cfg.MODEL.RESNET_DET.STEM = [1, 1], "basic", "3x3"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3"]
    return cfg


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", "-2.safetensors", "model_final.pth"])
def test_a_detector_is_held_to_the_pixels_of_the_weights(make_cfg, tmp_path, monkeypatch, request, suffix, caplog):
    monkeypatch.chdir(request.config.rootpath)
    pixels = ["INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", [10.0, 20.0, 30.5], "MODEL.PIXEL_STD", [4.0, 5.0, 6.0]]
    train_classifier(make_cfg(*pixels, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()))
    weights = tmp_path / "out" / "classifier.safetensors"
    if suffix == "model_final.pth":
        weights = tmp_path / "out" / suffix
    elif suffix != ".safetensors":
        convert_weights(weights, tmp_path / f"new{suffix}", strip=suffix == ".pth")
        weights = tmp_path / f"new{suffix}"
    found = find_conventions(weights)
    assert (found.channel_order, found.pixel_mean, found.stride_in_1x1) == ("BGR", (10.0, 20.0, 30.5), False)
    with pytest.raises(InputError, match=r"(?s)were not trained with what the config says .*FORMAT: BGR.*30\.5"):
        prepare_weights(detector_cfg(weights))
    cfg = detector_cfg(weights, "MODEL.RESNET_DET.MATCH_WEIGHTS", "True")
    prepare_weights(cfg)
    assert cfg.MODEL.PIXEL_MEAN == [10.0, 20.0, 30.5]
    assert cfg.INPUT.FORMAT == "BGR"
    caplog.set_level("INFO")
    prepare_weights(cfg)
    assert "as MODEL.WEIGHTS were trained with" in caplog.text


def weights_of_a_backbone(make_cfg, tmp_path, **shape):
    net = make_resnet(block="bottleneck", stage_blocks=(1, 1), num_classes=6, **shape)
    train_classifier(make_cfg("SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()), backbone=net)
    return tmp_path / "out" / "classifier.safetensors"


def bottleneck_cfg(weights, *opts):
    cfg = merge_cfg("configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", ["MODEL.WEIGHTS", str(weights), *opts])
    cfg.MODEL.RESNET_DET.STAGE_BLOCKS, cfg.MODEL.RESNET_DET.BLOCK = [1, 1], "bottleneck"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3"]
    cfg.merge_from_list(["MODEL.RESNET_DET.MATCH_WEIGHTS", True])
    return cfg


def test_the_weights_of_a_backbone_of_ones_own_tell_how_that_computes(make_cfg, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    weights = weights_of_a_backbone(make_cfg, tmp_path, stride_in_1x1=True, shortcut="avg_down", norm="GN")
    found = find_conventions(weights)
    assert found.stride_in_1x1 is True, "of the net, not of the config"
    assert (found.net["shortcut"], found.net["norm"], found.net["preact"]) == ("avg_down", "GN", False)
    cfg = bottleneck_cfg(weights)
    with pytest.raises(InputError, match=r"norm is 'GN' there, 'BN' here .*; shortcut is 'avg_down' there"):
        prepare_weights(cfg)
    cfg.MODEL.RESNET_DET.SHORTCUT, cfg.MODEL.RESNETS.NORM = "avg_down", "GN"
    prepare_weights(cfg)
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is True, "MATCH_WEIGHTS sets what stride there was"
    prepare_weights(bottleneck_cfg(weights, "MODEL.RESNET_DET.CHECK_WEIGHTS", "False"))


def test_other_dilations_are_told_and_no_error(make_cfg, tmp_path, monkeypatch, request, caplog):
    monkeypatch.chdir(request.config.rootpath)
    weights = weights_of_a_backbone(make_cfg, tmp_path, norm="BN")
    prepare_weights(bottleneck_cfg(weights, "MODEL.RESNETS.NORM", "FrozenBN"))
    assert "dilations" not in caplog.text
    prepare_weights(bottleneck_cfg(weights, "MODEL.RESNET_DET.DILATIONS", "[1, 2]"))
    assert "were trained with dilations [1] of the blocks of res3, and the net that is built has [2]" in caplog.text


@pytest.mark.parametrize("key", [True, False])
def test_a_backbone_of_ones_own_strides_where_it_strides_whatever_the_config_says(make_cfg, tmp_path, caplog, key):
    shape = {"block": "bottleneck", "stage_blocks": (1, 1), "num_classes": 6}
    weights = weights_of_a_backbone(make_cfg, tmp_path, stride_in_1x1=True)
    opts = ["MODEL.WEIGHTS", str(weights), "MODEL.RESNETS.STRIDE_IN_1X1", key, "DATASETS.TEST", ()]
    cfg = make_cfg(*opts, "SOLVER.MAX_ITER", 1, out="other")
    train_classifier(cfg, backbone=make_resnet(**shape, stride_in_1x1=True))
    cfg.merge_from_list(["MODEL.RESNET_DET.MATCH_WEIGHTS", True, "SOLVER.MAX_ITER", 2])
    other = make_resnet(**shape, stride_in_1x1=False)
    with pytest.raises(InputError, match="net's stride_in_1x1 was True and is False"):
        train_classifier(cfg, backbone=other, resume=True)
    with pytest.raises(InputError, match=r"one that is built: stride_in_1x1 is True there, False here\. Build"):
        train_classifier(cfg, backbone=other, overwrite=True)
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").is_file()
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = not key
    train_classifier(cfg, backbone=make_resnet(**shape, stride_in_1x1=True), resume=True)
    assert "STRIDE_IN_1X1 set to" not in caplog.text


class Flattened(nn.Sequential):
    def forward(self, images):
        return {"linear": super().forward(images)}


def test_of_a_module_of_ones_own_only_the_pixels_are_known(make_cfg, tmp_path):
    net = Flattened(nn.Conv2d(3, 6, 16), nn.Flatten())
    train_classifier(make_cfg("SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()), backbone=net)
    with safe_open(tmp_path / "out" / "classifier.safetensors", "pt") as file:
        found = json.loads(file.metadata()[TRAINED_WITH])
    assert (found["channel_order"], found["stride_in_1x1"], found["net"]) == ("RGB", None, {})


def test_a_run_does_not_go_on_with_a_net_that_computes_otherwise(make_cfg):
    train_classifier(make_cfg("SOLVER.MAX_ITER", 1))
    with pytest.raises(InputError, match="the net's shortcut was projection and is avg_down"):
        train_classifier(make_cfg("MODEL.RESNET_DET.SHORTCUT", "avg_down"), resume=True)


def test_results_say_how_many_images_were_used(make_cfg, tmp_path):
    write_images(tmp_path / "train")
    bad = tmp_path / "train" / "bee" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    cfg = make_cfg("RESNET_DET.TEST.MAX_IMAGES", 5, "SOLVER.MAX_ITER", 1, "RESNET_DET.DATA.ON_BAD_IMAGE", "skip")
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH = (str(tmp_path / "train"),), 1
    train_classifier(cfg)
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["facts"]
    assert facts["trained on"] == {str(tmp_path / "train"): {"images": 17, "classes": 6}}
    assert facts["evaluated on"] == {cfg.DATASETS.TEST[0]: {"images": 5, "classes": 6}}
    assert json.loads((tmp_path / "out" / "skipped_images.json").read_text()).keys() == {str(bad)}


def test_images_that_broke_before_a_run_was_resumed_are_counted(make_cfg, tmp_path):
    write_images(tmp_path / "train")
    opts = ["DATASETS.TRAIN", (str(tmp_path / "train"),), "RESNET_DET.DATA.ON_BAD_IMAGE", "skip"]
    train_classifier(make_cfg(*opts, "SOLVER.MAX_ITER", 1))
    bad = tmp_path / "train" / "bee" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    train_classifier(make_cfg(*opts, "SOLVER.MAX_ITER", 2), resume=True)
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["facts"]
    assert facts["trained on"] == {str(tmp_path / "train"): {"images": 17, "classes": 6}}
    assert json.loads((tmp_path / "out" / "skipped_images.json").read_text()).keys() == {str(bad)}


def test_classes_that_differ_are_told(make_cfg, tmp_path):
    write_images(tmp_path / "other", [*CLASSES[:-1], "gnu"], per_class=1)
    with pytest.raises(
        InputError, match=r"other: its classes are not those of .*/train: fox only in .*; gnu only there"
    ):
        train_classifier(make_cfg("DATASETS.TEST", (str(tmp_path / "other"),)))
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["RESNET_DET.CLASSIFICATION.CROP", "center"], "CROP is 'center'; choose one of resized, padded, none"),
        (["RESNET_DET.CLASSIFICATION.RESIZE_TEST", 8], "RESIZE_TEST is 8; it must be at least 16"),
        (["RESNET_DET.TRAIN.BEST_METRIC", "bbox/AP"], "BEST_METRIC is 'bbox/AP'; choose one of classification/top1"),
        (["INPUT.CROP.ENABLED", True], "INPUT.CROP.ENABLED means nothing to a classifier"),
        (["INPUT.RANDOM_FLIP", "none"], "INPUT.RANDOM_FLIP means nothing to a classifier"),
        (["RESNET_DET.DATA.COPY_PASTE.PROB", 0.5], "RESNET_DET.DATA.COPY_PASTE.PROB means nothing to a classifier"),
        (["MODEL.RESNET_DET.STAGE_BLOCKS", [0, 1]], "stage_blocks"),
        (["MODEL.BACKBONE.NAME", "build_resnet_det_fpn_backbone"], "build_resnet_det_backbone is what is trained"),
        (["RESNET_DET.CLASSIFICATION.AREA", [0.5, 2.0]], "AREA is .*two numbers, the smaller one first"),
        (["DATASETS.TEST", ("a", "b")], "DATASETS.TEST .* one folder, tar or set of CIFAR's files"),
        (["MODEL.BACKBONE.FREEZE_AT", 1], "FREEZE_AT 1 freezes random weights"),
        (["DATASETS.TRAIN", ()], "DATASETS.TRAIN is empty"),
    ],
)
def test_wrong_configs_are_told_by_key(make_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        train_classifier(make_cfg(*opts))


def test_a_run_does_not_go_on_with_other_data(make_cfg, tmp_path):
    train_classifier(make_cfg())
    write_images(tmp_path / "more", per_class=4)
    cfg = make_cfg("DATASETS.TRAIN", (str(tmp_path / "more"),), "SOLVER.MAX_ITER", 8)
    with pytest.raises(InputError, match="the number of training images was 18 and is 24"):
        train_classifier(cfg, resume=True)
