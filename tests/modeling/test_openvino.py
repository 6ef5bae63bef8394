"""Backbones that OpenVINO computes are those of torch, in every kind of detector and however they are called."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from models import make_inputs, randomise_norms_
from test_prepared import MASK_RCNN, differ, make_model, run_parts

from resnet_det import make_resnet, prepare_for_inference
from resnet_det.modeling.openvino_backbone import OpenVinoBackbone
from resnet_det.modeling.openvino_heads import OpenVinoDenseHead, OpenVinoLayers
from resnet_det.modeling.pyramid import make_fpn
from resnet_det.openvino_core import LEARNED, import_openvino, keep_signal_stack

KINDS = [
    MASK_RCNN,
    "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
]

LAYERS = {  # heads of boxes that OpenVINO computes
    MASK_RCNN: 2,
    "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml": 1,
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml": 2,
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml": 2,
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": 4,
}


def make_backbone(**kwargs):
    torch.manual_seed(0)
    backbone = make_fpn(make_resnet(14, **kwargs), out_channels=32).eval()
    randomise_norms_(backbone)
    return backbone


def prepare(model, dtype=torch.float32, calibration=()):
    return prepare_for_inference(model, dtype=dtype, backend="openvino", calibration=calibration)


@pytest.fixture(scope="module")
def pair():
    backbone = make_backbone()
    return backbone, prepare(backbone)


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (3, 3, 96, 64), (2, 3, 65, 33)])
@torch.no_grad()
def test_features_are_those_of_torch_whatever_the_size(pair, shape):
    backbone, fast = pair
    x = torch.randn(shape)
    if shape[2] % 32:  # as Detectron2 pads it
        x = torch.nn.functional.pad(x, (0, -shape[3] % 32, 0, -shape[2] % 32))
    expected, found = backbone(x), fast(x)
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].shape == expected[name].shape
        assert differ([found[name]], [expected[name]]) < 1e-5, name
        assert found[name].is_contiguous(memory_format=torch.channels_last)
    assert fast.output_shape() == backbone.output_shape()
    assert fast.size_divisibility == backbone.size_divisibility


@torch.no_grad()
def test_float32_is_float32_under_autocast(pair):
    backbone, fast = pair
    with torch.autocast("cpu", torch.bfloat16):
        made = prepare(backbone)
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(made(x)[name], fast(x)[name]) for name in fast(x))


@torch.no_grad()
@pytest.mark.long
def test_int8_comes_near_and_every_level_has_its_scale():
    backbone, images = make_backbone(), [torch.randn(1, 3, 64, 64) for _ in range(8)]
    fast = prepare(backbone, torch.int8, images)
    expected, found = backbone(images[0]), fast(images[0])
    for name in expected:
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert 1e-4 < error < 0.2, name
    assert torch.equal(found["p6"], found["p5"][:, :, ::2, ::2])


def test_copies_and_threads_compute_the_same(pair):
    _, fast = pair
    images = [torch.randn(1, 3, 64, 32 * (1 + number % 3)) for number in range(12)]
    expected = [fast(image) for image in images]
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert all(torch.equal(other(images[0])[name], expected[0][name]) for name in expected[0])
    found = [None] * len(images)

    def run(start):
        for number in range(start, len(images), 3):
            found[number] = fast(images[number])

    threads = [threading.Thread(target=run, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    "config", [pytest.param(config, marks=[pytest.mark.long] * ("C4" in config or "DC5" in config)) for config in KINDS]
)
@torch.no_grad()
def test_every_kind_of_detector_computes_the_same(config):
    cfg, model = make_model(config, depth=50 if "C4" in config else 18)
    inputs = make_inputs(cfg)
    fast = prepare(model)
    assert isinstance(fast, type(model))
    head = fast.head if hasattr(fast, "head") else fast.proposal_generator.rpn_head
    assert isinstance(head, OpenVinoDenseHead)
    with pytest.raises(ValueError, match="0 feature maps, and this head takes "):
        head([])
    layers = [name for name, part in fast.named_modules() if isinstance(part, OpenVinoLayers)]
    assert len(layers) == LAYERS.get(config, 0)
    images = model.preprocess_image(inputs).tensor
    assert differ(fast.backbone(images).values(), model.backbone(images).values()) < 1e-4
    for found, expected in zip(fast(inputs), model(inputs), strict=True):
        found, expected = found["instances"], expected["instances"]
        assert len(found) == len(expected) > 0
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)
        if found.has("pred_keypoints"):
            torch.testing.assert_close(
                found.pred_keypoints[..., :2], expected.pred_keypoints[..., :2], atol=0.1, rtol=0
            )
        if found.has("pred_masks"):
            assert (found.pred_masks != expected.pred_masks).float().mean() < 0.01
    with pytest.raises(RuntimeError, match="not the state of a prepared model like this one"):
        fast.load_state_dict(model.state_dict(), strict=False)
    again = copy.deepcopy(fast)
    again.load_state_dict(fast.state_dict())
    assert torch.equal(again(inputs)[0]["instances"].scores, fast(inputs)[0]["instances"].scores)


@pytest.mark.long
def test_int8_in_a_detector_takes_images_as_the_model_does():
    cfg, model = make_model()
    inputs = make_inputs(cfg)
    fast = prepare(model, torch.int8, inputs)
    assert fast.backbone.dtype == fast.proposal_generator.rpn_head.network.dtype == torch.int8
    assert 1e-4 < differ(run_parts(fast, cfg), run_parts(model, cfg)) < 1
    heads = fast.proposal_generator.rpn_head, get_layers(fast.roi_heads.mask_head), get_layers(fast.roi_heads.box_head)
    assert [part.network.dtype for part in heads] == [torch.int8] * 3
    # What predicts is in float32: for each of five levels scores and offsets, and the masks. The rest is not.
    assert [count_layers(part.network) for part in heads] == [(5, 10), (2, 1), (2, 0)]


def count_layers(network):
    """Layers with weights in int8, and those in float32."""
    in_int8, in_float32 = 0, 0
    for op in network._network.get_ordered_ops():
        if op.get_type_name() in LEARNED:
            source = op.input_value(0).get_node()
            while source.get_type_name() in ("Transpose", "Reshape"):  # to channels-first, and to flat
                source = source.input_value(0).get_node()
            in_int8 += source.get_type_name() == "FakeQuantize"
            in_float32 += source.get_type_name() != "FakeQuantize"
    return in_int8, in_float32


@pytest.mark.long
def test_a_head_without_a_box_in_calibration_stays_in_float32(caplog):
    cfg, model = make_model()
    model.roi_heads.box_predictor.test_score_thresh = 1.1
    fast = prepare(model, torch.int8, make_inputs(cfg))
    assert get_layers(fast.roi_heads.box_head).network.dtype == torch.int8
    assert get_layers(fast.roi_heads.mask_head).network.dtype == torch.float32
    assert "int8: roi_heads.mask_head stays in float32: it gets 0 boxes in 2 calibration images" in caplog.text


def get_layers(head):
    (layers,) = head
    assert isinstance(layers, OpenVinoLayers)
    return layers


def test_a_detector_with_bfloat16_has_heads_in_bfloat16():
    cfg, model = make_model()
    fast = prepare(model, torch.bfloat16)
    assert fast.backbone.dtype == torch.bfloat16
    assert get_layers(fast.roi_heads.box_head).network.dtype == torch.bfloat16
    assert differ(run_parts(fast, cfg), run_parts(model, cfg)) < 0.1


@pytest.mark.parametrize("kind", ["box", "mask", "keypoint"])
@torch.no_grad()
def test_heads_of_boxes_take_any_number_of_them(kind):
    _, model = make_model("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml" if kind == "keypoint" else MASK_RCNN)
    head, fast = (getattr(one.roi_heads, f"{kind}_head") for one in (model, prepare(model)))
    side = getattr(model.roi_heads, f"{kind}_pooler").output_size
    for count in (0, 1, 3, 70):
        x = torch.randn(count, 32, *side)
        expected, found = (torch.nn.Sequential(*one.children())(x) for one in (head, fast))
        assert found.shape == expected.shape
        assert not count or differ([found], [expected]) < 1e-5


class OwnHead(MaskRCNNConvUpsampleHead):
    """One that computes something else of the same layers."""

    def layers(self, x):
        return 1 - super().layers(x)


@torch.no_grad()
def test_heads_of_a_users_own_are_left_in_torch():
    cfg, model = make_model()
    model.roi_heads.mask_head.__class__ = OwnHead
    fast = prepare(model)
    assert [type(layer).__name__ for layer in fast.roi_heads.mask_head][-1] == "Conv2d"
    assert differ(run_parts(fast, cfg), run_parts(model, cfg)) < 1e-4


@torch.no_grad()
def test_a_layer_that_comes_twice_is_computed_twice():
    cfg, model = make_model()
    head = model.roi_heads.box_head
    head.add_module("fc_relu2", head.fc_relu1)
    assert len(head) > len(list(head.children()))
    assert differ(run_parts(prepare(model), cfg), run_parts(model, cfg)) < 1e-4


@pytest.mark.parametrize("name", ["forward", "layers"])
@torch.no_grad()
def test_heads_with_a_method_of_their_own_are_left_in_torch(name):
    _, model = make_model()
    head = model.roi_heads.mask_head
    setattr(head, name, getattr(head, name))
    assert "predictor" in dict(prepare(model).roi_heads.mask_head.named_children())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dtype": torch.int8}, "int8 needs calibration"),
        ({"dtype": torch.float16}, r"dtype is torch.float16; openvino has torch.float32, torch.bfloat16, torch.int8"),
        ({"compile_backbone": True}, "OpenVINO compiles the backbone anyway"),
        ({"backend": "tensorrt"}, "backend is 'tensorrt'; choose one of torch, openvino"),
        ({"backend": "torch", "dtype": torch.int8}, "dtype is torch.int8; torch has"),
    ],
)
def test_what_cannot_be_is_said(kwargs, message):
    with pytest.raises(ValueError, match=message):
        prepare_for_inference(make_backbone(), **{"backend": "openvino", **kwargs})


@pytest.mark.parametrize(("module", "dtype"), [("openvino", torch.float32), ("nncf", torch.int8)])
def test_what_is_not_installed_is_named(monkeypatch, module, dtype):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="it is not part of the plain set-up: pip install openvino nncf"):
        prepare(make_backbone(), dtype, [torch.randn(1, 3, 64, 64)])


def test_images_on_a_gpu_are_refused(pair):
    with pytest.raises(
        ValueError, match="the input is on meta, and OpenVINO computes this part of the model on the CPU alone"
    ):
        pair[1](torch.empty(1, 3, 64, 64, device="meta"))
    assert isinstance(pair[1], OpenVinoBackbone)
    with pytest.raises(ValueError, match="the model is elsewhere: move it there first"):
        prepare(copy.deepcopy(pair[0]).to("meta"))


def find_signal_stack():
    """Where this thread's stack for signal handlers begins; 0 if it has none."""
    stack = (ctypes.c_void_p * 3)()
    assert ctypes.CDLL(None).sigaltstack(None, stack) == 0
    return stack[0] or 0


def is_mapped(address):
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return any(start <= address < end for start, end in ranges)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="OpenVINO sets a stack for signals on Linux alone")
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.int8, marks=pytest.mark.long)])
@torch.no_grad()
def test_signals_still_have_a_stack_when_models_have_gone(dtype):
    """Two of OpenVINO's Cores, of which the first goes first, leave one that has been freed."""
    x = torch.randn(1, 3, 64, 64)
    first, second = (prepare(make_backbone(), dtype, [x]) for _ in range(2))
    for model in (first, second):
        model(x)
    del model, first
    gc.collect()
    del second
    gc.collect()
    stack = find_signal_stack()
    assert not stack or is_mapped(stack)
    received = []
    before = signal.signal(signal.SIGUSR1, lambda *_: received.append(True))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="OpenVINO sets a stack for signals on Linux alone")
def test_cores_of_others_leave_the_stack_for_signals_as_it_was():
    openvino = import_openvino()
    before = find_signal_stack()
    with keep_signal_stack():
        first, second = openvino.Core(), openvino.Core()
        for core in (first, second):
            core.get_property("CPU", "FULL_DEVICE_NAME")
        assert find_signal_stack() != before, "else this tests nothing"
        del core, first
        del second
    assert find_signal_stack() == before
