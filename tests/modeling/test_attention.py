"""Self-attention in place of 3x3 convolutions: against plain loops and timm's, and in all that a net is used for."""

from __future__ import annotations

import itertools
import math

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from models import check_trains_and_detects, make_inputs, randomise_norms_
from timm.layers.bottleneck_attn import BottleneckAttn

from resnet_det import load_weights, make_resnet, prepare_for_inference
from resnet_det.config import check_cfg
from resnet_det.deploy.export import trace, write_onnx
from resnet_det.deploy.modules import make_exportable
from resnet_det.errors import InputError
from resnet_det.modeling.attention import SelfAttention
from resnet_det.specs import AttentionSpec

LAST = (False, False, False, True)
NARROW = {"depth": 14, "stem_out_channels": 16, "res2_out_channels": 32, "width_per_group": 8}


def make_bot(**fields):
    torch.manual_seed(0)
    net = make_resnet(**{**NARROW, "attention_stages": LAST, "attention_extent": 4, **fields})
    randomise_norms_(net)
    return net.eval()


def attend_by_loops(layer, x):
    """Figure 4 of the paper, written down position by position, for one image."""
    channels, height, width = x.shape[1:]
    size = channels // layer.num_heads
    q, k, v = F.conv2d(x, layer.qkv.weight)[0].double().split(channels)
    out = torch.zeros(channels, height, width, dtype=torch.float64)
    furthest = layer.extent - 1
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        for row in range(height):
            for column in range(width):
                query, logits = q[part, row, column], []
                for key_row, key_column in itertools.product(range(height), range(width)):
                    distances = key_row - row, key_column - column
                    down, right = (max(-furthest, min(furthest, distance)) for distance in distances)
                    vector = layer.relative_rows[furthest + down] + layer.relative_columns[furthest + right]
                    logits.append(query @ (k[part, key_row, key_column] + vector.double()) / math.sqrt(size))
                weights = torch.stack(logits).softmax(0).reshape(height, width)
                out[part, row, column] = (v[part] * weights).sum((1, 2))
    return out.float()[None]


@pytest.mark.parametrize(("extent", "size"), [(3, (5, 4)), (6, (2, 3)), (1, (3, 3))])
@torch.no_grad()
def test_it_is_the_papers(extent, size):
    layer = SelfAttention(8, AttentionSpec(num_heads=2, extent=extent), stride=1, norm="")
    x = torch.randn(1, 8, *size)
    torch.testing.assert_close(layer(x), attend_by_loops(layer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_it_is_timms_at_the_one_size_that_timms_has(stride):
    theirs = BottleneckAttn(32, feat_size=(6, 6), num_heads=4, stride=stride, scale_pos_embed=True)
    ours = SelfAttention(32, AttentionSpec(num_heads=4, extent=6), stride=stride, norm="")
    position = theirs.pos_embed
    for own, other in (
        (ours.qkv.weight, theirs.qkv.weight),
        (ours.relative_rows, position.height_rel),
        (ours.relative_columns, position.width_rel),
    ):
        own.copy_(other)
    x = torch.randn(2, 32, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("dilations", [None, (1, 1, 1, 2)])
def test_images_of_any_size_in_training(stride_in_1x1, dilations):
    net = make_bot(stride_in_1x1=stride_in_1x1, dilations=dilations).train()
    plain = make_resnet(**NARROW, dilations=dilations)
    assert net.output_shape() == plain.output_shape()
    for size in ((64, 64), (97, 150)):
        x = torch.randn(2, 3, *size)
        net.zero_grad()
        outputs = net(x)
        assert {n: o.shape for n, o in outputs.items()} == {n: o.shape for n, o in plain(x).items()}
        sum(output.square().mean() for output in outputs.values()).backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in net.parameters())


def test_checkpointing_changes_nothing():
    x, results = torch.randn(2, 3, 96, 64), []
    for checkpointed in (False, True):
        net = make_bot(checkpoint_stages=(checkpointed,) * 4).train()
        net(x)["res5"].square().mean().backward()
        results.append([p.grad for p in net.parameters()])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize(
    ("backend", "dtype"), [("torch", torch.float32), ("torch", torch.bfloat16), ("openvino", torch.float32)]
)
@torch.no_grad()
def test_prepared_ones_put_out_the_same(backend, dtype):
    net = make_bot()
    prepared = prepare_for_inference(net, backend=backend, dtype=dtype)
    for size in ((64, 96), (160, 100)):
        x = torch.randn(1, 3, *size)
        for name, output in net(x).items():
            share = (prepared(x)[name].float() - output).abs().max() / output.abs().max()
            assert share < (1e-4 if dtype == torch.float32 else 0.1), name


def test_weights(tmp_path):
    net, other = make_bot(), make_bot()
    torch.save(net.state_dict(), tmp_path / "bot.pth")
    torch.save(make_resnet(**NARROW).state_dict(), tmp_path / "plain.pth")
    report = load_weights(other, tmp_path / "bot.pth")
    assert report.file_model == report.model == "Wide ResNet-14-0.125 with attention in res5"
    assert not report.missing
    with pytest.raises(InputError, match=r"the config says Wide .* with attention in res5"):
        load_weights(other, tmp_path / "plain.pth")


@pytest.fixture
def cfg(default_cfg):
    cfg = default_cfg
    cfg.merge_from_file("configs/Base-RCNN-FPN.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.MASK_ON = "cpu", "", False
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 14, 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32, 16, 16
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 3, 10, 50
    cfg.MODEL.RESNET_DET.ATTENTION_STAGES, cfg.MODEL.RESNET_DET.ATTENTION_EXTENT = list(LAST), 5
    return cfg


@pytest.mark.long
@torch.no_grad()
def test_it_can_be_exported_for_any_size():
    layer = SelfAttention(8, AttentionSpec(num_heads=2, extent=3), stride=2, norm="BN").eval()
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(layer, (torch.rand(2, 8, 4, 6),), dynamic_shapes=(free,)).module()
    for size in ((2, 8, 3, 4), (1, 8, 7, 5)):
        x = torch.randn(size)
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-4, atol=1e-5)


def test_a_detector_trains(cfg):
    assert check_cfg(cfg) == []
    model = build_model(cfg)
    randomise_norms_(model)
    assert isinstance(model.backbone.bottom_up.res5[0].attention, SelfAttention)
    assert model.backbone.bottom_up.res5[0].attention.relative_rows.shape == (9, 16)
    check_trains_and_detects(model, make_inputs(cfg, ((64, 90), (70, 64))))


@pytest.mark.long
def test_a_detector_can_be_exported(cfg, tmp_path):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    model = build_model(cfg)
    randomise_norms_(model)
    program = trace(make_exportable(model.eval()), 3)
    write_onnx(program, tmp_path / "model.onnx", make_exportable(model).output_names)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images, sizes = torch.rand(1, 3, 96, 288) * 255, torch.tensor([[96, 288]])
    with torch.no_grad():
        expected = make_exportable(model)(images, sizes)
    assert len(expected[0]) > 0
    found = session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})
    for theirs, onnx, own in zip(program.module()(images, sizes), found, expected, strict=True):
        torch.testing.assert_close(theirs, own, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.from_numpy(onnx), own, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.WIDTH_PER_GROUP", 64], "attention stands in bottlenecks"),
        (["MODEL.RESNET_DET.PREACT", True], "attention stands in bottlenecks without preact"),
        (["MODEL.RESNETS.NUM_GROUPS", 4], "attention has heads in place of groups: num_groups is 4"),
        (["MODEL.RESNETS.DEFORM_ON_PER_STAGE", list(LAST)], "attention or deformable convolution, not both"),
        (["MODEL.RESNET_DET.ATTENTION_HEADS", 3], "attention_heads is 3, which does not divide the 64 channels"),
        (["MODEL.RESNET_DET.ATTENTION_EXTENT", 0], "attention_extent 0; each must be at least 1"),
        (["MODEL.RESNET_DET.ATTENTION_STAGES", [True]], "attention_stages is [True], and there are 4 stages"),
    ],
)
def test_keys_that_do_not_fit(cfg, opts, message):
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
    cfg.merge_from_list(opts)
    assert any(message in problem for problem in check_cfg(cfg)), check_cfg(cfg)
