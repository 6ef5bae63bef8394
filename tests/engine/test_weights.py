"""MODEL.WEIGHTS at start-up: what fits trains, and what does not stops before training."""

from __future__ import annotations

import pytest
import torch
import torchvision
import yaml

from resnet_det import make_resnet
from resnet_det.engine import Trainer, build_train_parser, setup_cfg, train_or_evaluate
from resnet_det.engine.resuming import read_fixed_settings
from resnet_det.errors import InputError
from resnet_det.weights import write_tensors

FASTER = "configs/COCO-Detection/faster_rcnn_R_{}_FPN_1x.yaml"
FOUR_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")


@pytest.fixture
def parse(small_data, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def parse(config, *opts):
        data = ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]
        small = ["SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
        small += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"]
        opts = ["OUTPUT_DIR", tmp_path / "out", *small, *opts]
        return build_train_parser().parse_args(["--config-file", config, *data, *map(str, opts)])

    return parse


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    """Raw state dicts of torchvision, as downloaded."""
    folder = tmp_path_factory.mktemp("torchvision")
    for depth in (18, 50):
        torch.manual_seed(depth)
        torch.save(torchvision.models.get_model(f"resnet{depth}").state_dict(), folder / f"resnet{depth}.pth")
    return lambda depth: folder / f"resnet{depth}.pth"


def test_a_raw_torchvision_file_trains(parse, torchvision_file):
    results = train_or_evaluate(parse(FASTER.format(18), "MODEL.WEIGHTS", torchvision_file(18)))
    assert set(results) == {"bbox"}


def test_the_backbone_starts_from_the_file(parse, torchvision_file):
    opts = ["MODEL.WEIGHTS", torchvision_file(18), "RESNET_DET.TRAIN.EMA_DECAY", 0.9]
    trainer = Trainer(setup_cfg(parse(FASTER.format(18), *opts)))
    trainer.resume_or_load(resume=False)
    expected = torch.load(torchvision_file(18))
    for model in (trainer.model, trainer.ema.module):
        resnet = model.backbone.bottom_up
        assert torch.equal(resnet.res5[1].conv2.weight, expected["layer4.1.conv2.weight"])
        assert torch.equal(resnet.stem.conv1.norm.running_var, expected["bn1.running_var"])


def test_a_file_of_another_depth_stops_before_training(parse, torchvision_file):
    args = parse(FASTER.format(34), "MODEL.WEIGHTS", torchvision_file(50))
    with pytest.raises(InputError, match="this file is a ResNet-50, the config says 34"):
        train_or_evaluate(args)


def test_wrong_pixels_stop_with_the_lines_to_put_into_the_config(parse, torchvision_file):
    with pytest.raises(InputError) as caught:
        setup_cfg(parse(FASTER.format(50), "MODEL.WEIGHTS", torchvision_file(50)))
    message = str(caught.value)
    assert all(key in message for key in FOUR_KEYS)
    lines = yaml.safe_load(message[message.index("\nINPUT:") :])
    assert lines == {
        "INPUT": {"FORMAT": "RGB"},
        "MODEL": {
            "PIXEL_MEAN": [123.675, 116.28, 103.53],
            "PIXEL_STD": [58.395, 57.12, 57.375],
            "RESNETS": {"STRIDE_IN_1X1": False},
        },
    }


def test_those_lines_can_be_set_by_themselves_and_are_recorded(parse, torchvision_file, tmp_path, caplog):
    opts = ["MODEL.WEIGHTS", torchvision_file(50), "MODEL.RESNET_DET.MATCH_WEIGHTS", True]
    cfg = setup_cfg(parse(FASTER.format(50), *opts))
    assert cfg.INPUT.FORMAT == "RGB"
    assert not cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert all(f"{key} set to" in caplog.text for key in FOUR_KEYS)
    dumped = tmp_path / "config.yaml"
    dumped.write_text(cfg.dump())
    again = setup_cfg(parse(str(dumped)))
    assert again.INPUT == cfg.INPUT
    for node in ("PIXEL_MEAN", "PIXEL_STD", "RESNETS", "RESNET_DET"):
        assert again.MODEL[node] == cfg.MODEL[node]


def test_a_resumed_run_has_them_though_the_weights_are_gone(parse, tmp_path):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    opts = ["MODEL.WEIGHTS", tmp_path / "resnet50.pth", "MODEL.RESNET_DET.MATCH_WEIGHTS", True]
    cfg = setup_cfg(parse(FASTER.format(50), *opts))
    state = {"iteration": 0, "model": {}, "trainer": {"fixed": read_fixed_settings(cfg)}}
    torch.save(state, tmp_path / "out" / "model_0000000.pth")
    (tmp_path / "resnet50.pth").unlink()
    args = parse(FASTER.format(50), *opts)
    args.resume = True
    resumed = setup_cfg(args)
    assert read_fixed_settings(resumed) == read_fixed_settings(cfg)
    assert (resumed.INPUT.FORMAT, resumed.MODEL.PIXEL_STD) == ("RGB", [58.395, 57.12, 57.375])


def test_the_check_can_be_left_out_and_knows_other_channel_counts(parse, torchvision_file):
    weights = ["MODEL.WEIGHTS", torchvision_file(50)]
    cfg = setup_cfg(parse(FASTER.format(50), *weights, "MODEL.RESNET_DET.CHECK_WEIGHTS", False))
    assert cfg.INPUT.FORMAT == "BGR"
    grey = [
        "INPUT.FORMAT",
        "L",
        "MODEL.PIXEL_MEAN",
        "[100.0]",
        "MODEL.PIXEL_STD",
        "[50.0]",
        "MODEL.RESNETS.STRIDE_IN_1X1",
        False,
    ]
    assert setup_cfg(parse(FASTER.format(50), *weights, *grey)).MODEL.PIXEL_MEAN == [100.0]


@pytest.mark.parametrize(
    ("opts", "messages"),
    [
        ([], ["FREEZE_AT 2 freezes random weights: set it to 0", "NORM FrozenBN never normalises"]),
        (["MODEL.BACKBONE.FREEZE_AT", 0], ["NORM FrozenBN never normalises: set it to BN, SyncBN or GN"]),
        (["MODEL.RESNETS.NORM", "GN"], ["FREEZE_AT 2 freezes random weights"]),
    ],
)
def test_training_from_scratch_is_safe(parse, opts, messages):
    with pytest.raises(InputError) as caught:
        setup_cfg(parse(FASTER.format(50), "MODEL.WEIGHTS", "", *opts))
    assert all(message in str(caught.value) for message in messages)
    assert "ALLOW_FROZEN_RANDOM True" in str(caught.value)
    setup_cfg(parse(FASTER.format(50), "MODEL.WEIGHTS", "", *opts, "MODEL.RESNET_DET.ALLOW_FROZEN_RANDOM", True))


def test_evaluating_a_classifier_is_an_error(parse, tmp_path):
    path = tmp_path / "R-18.pth"
    write_tensors(make_resnet(18, norm="FrozenBN").state_dict(), path)
    args = parse(FASTER.format(18), "MODEL.WEIGHTS", path)
    args.eval_only = True
    with pytest.raises(InputError, match=r"tensors of this detector are not in them.*Are they of another config"):
        train_or_evaluate(args)


def test_missing_weights(parse):
    with pytest.raises(InputError, match=r"weights no/such.pth: no such file"):
        setup_cfg(parse(FASTER.format(50), "MODEL.WEIGHTS", "no/such.pth"))
