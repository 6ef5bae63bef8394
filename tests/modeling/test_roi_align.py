"""ROIAlign by rows is torchvision's, forward and backward; and a model with it is the same model."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.layers import ROIAlign, ROIAlignRotated
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from models import make_inputs, randomise_norms_, with_our_backbone, zoo_cfg
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import roi_align as torchvision_roi_align

from resnet_det import use_fast_roi_align
from resnet_det.modeling import roi_align as by_rows
from resnet_det.modeling.fast_poolers import FastROIAlign, speed_up_on_cpus_
from resnet_det.modeling.roi_align import Pooling, roi_align


def make_boxes(count, size, scale, *, images=3, negative=False):
    """Inside, outside, large, long and empty ones, and with ``negative`` some whose corners are swapped."""
    height, width = size
    corners = (torch.rand(count, 2) * 2 - 0.5) * torch.tensor([width, height]) / scale
    sizes = torch.randn(count, 2).abs() * 20 / scale
    sizes[:5] = torch.tensor([[3000.0, 1], [0.5, 2000], [0, 30], [0, 0], [900, 900]])[: min(count, 5)]
    if negative:
        sizes[5:9] *= -1
        sizes[9:12, 0] *= -1
    return torch.cat([torch.randint(images, (count, 1)).float(), corners, corners + sizes], dim=1)


def differ(found, expected):
    """The largest difference, as a share of the largest expected value."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [-1, 0, 1, 2, 5])
@pytest.mark.parametrize("output_size", [(7, 7), (5, 3), (14, 14), (1, 1)])
@pytest.mark.parametrize("size", [(25, 33), (1, 1), (2, 60)])
@pytest.mark.parametrize("scale", [1.0, 0.25, 1 / 32])
def test_values_and_gradients_are_torchvisions(size, output_size, sampling_ratio, aligned, scale):
    features = torch.randn(3, 5, *size)
    # With swapped corners, sampled adaptively, torchvision asks for less than no memory.
    boxes = make_boxes(40, size, scale, negative=sampling_ratio > 0 or not aligned)
    weights = torch.randn(40, 5, *output_size)
    results = []
    for function in (torchvision_roi_align, lambda x, y, *options: roi_align(x, y, Pooling(*options))):
        x = features.clone().requires_grad_()
        out = function(x, boxes, output_size, scale, sampling_ratio, aligned)
        (out * weights).sum().backward()
        results.append((out.detach(), x.grad))
    (expected, expected_gradient), (out, gradient) = results
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert differ(gradient, expected_gradient) < 1e-5


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_first_and_second_gradients(sampling_ratio, aligned):
    features = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    boxes = make_boxes(6, (4, 5), 0.5, images=2).double()
    pooling = Pooling((3, 2), 0.5, sampling_ratio, aligned)
    expected = torchvision_roi_align(features, boxes, *pooling)
    torch.testing.assert_close(roi_align(features, boxes, pooling), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, boxes, pooling), features)
    assert torch.autograd.gradgradcheck(lambda x: roi_align(x, boxes, pooling).square(), features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_takes_boxes_as_they_are_and_sums_in_float32(dtype, autocast):
    """Boxes near 2000 in bfloat16 would be 8 pixels apart."""
    features = torch.randn(2, 16, 40, 500).to(dtype).contiguous(memory_format=torch.channels_last)
    corners = torch.rand(300, 2) * torch.tensor([1500.0, 60.0]) + torch.tensor([400.0, 0.0])
    boxes = torch.cat([torch.randint(2, (300, 1)), corners, corners + torch.rand(300, 2) * 90], dim=1)
    exact = features.float().contiguous().requires_grad_()
    expected = torchvision_roi_align(exact, boxes, (7, 7), 0.25, 0, True)
    features.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=autocast):
        out = FastROIAlign((7, 7), 0.25, 0, True)(features, boxes)
    assert out.dtype == dtype
    weights = torch.randn(out.shape).to(dtype)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert differ(out.detach(), expected.detach()) < 0.01
    assert features.grad.dtype == dtype
    assert differ(features.grad, exact.grad) < 0.01


def test_weights_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(by_rows, "WEIGHTS_AT_ONCE", 3000)
    features = torch.randn(3, 4, 30, 40)
    boxes = make_boxes(100, (30, 40), 0.5)
    pooling = Pooling((4, 4), 0.5, 0, True)
    parts = list(by_rows._find_rows(boxes, features.shape, pooling))
    assert all(len(part.weights) <= 3000 for part in parts if len(part.boxes) > 1)
    assert torch.cat([part.boxes for part in parts]).sort().values.tolist() == list(range(100))
    expected = torchvision_roi_align(features, boxes, *pooling)
    torch.testing.assert_close(roi_align(features, boxes, pooling), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
def test_boxes_far_larger_than_the_map_are_sampled_inside_it_alone(aligned):
    features = torch.randn(2, 4, 20, 30)
    boxes = torch.tensor([[0.0, -700, -650, 850, 800], [1, -1400, 3, 90, 12], [1, 4, -30, 9, 1900], [0, -800, 0, 5, 9]])
    pooling = Pooling((2, 3), 1.0, 0, aligned)
    expected = torchvision_roi_align(features, boxes, *pooling)
    assert (expected.abs().amax((1, 2, 3)) > 0).all()
    assert differ(roi_align(features, boxes, pooling), expected) < 1e-4
    # torchvision would sample this one at 10^11 places.
    (part,) = by_rows._find_rows(boxes[:1] * 1000, features.shape, pooling)
    assert 0 < len(part.weights) <= 4 * 20 * 30


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_boxes_that_are_not_finite_pool_zeros_and_harm_no_other(sampling_ratio):
    features, boxes = torch.randn(1, 4, 20, 30), make_boxes(20, (20, 30), 1.0, images=1)
    pooling = Pooling((7, 7), 1.0, sampling_ratio, True)
    expected = roi_align(features, boxes, pooling)
    boxes[8, 1], boxes[9, 3], boxes[10, 1:] = torch.nan, torch.inf, torch.tensor([-torch.inf, 0, torch.inf, 5])
    out = roi_align(features, boxes, pooling)
    assert not out[8:11].any()
    torch.testing.assert_close(out[11:], expected[11:], rtol=0, atol=1e-6)


def test_the_default_device_does_not_matter():
    features, boxes = torch.randn(3, 4, 20, 30, requires_grad=True), make_boxes(20, (20, 30), 1.0)
    pooling = Pooling((7, 7), 1.0, 0, True)
    expected = roi_align(features, boxes, pooling)
    with torch.device("meta"):
        out = roi_align(features, boxes, pooling)
        out.sum().backward()
    assert torch.equal(out, expected)
    assert features.grad.device.type == "cpu"


def test_an_image_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError, match="not in the valid range"):
        roi_align(torch.randn(2, 4, 20, 30), torch.tensor([[2.0, 1, 1, 9, 9]]), Pooling((7, 7), 1.0, 0, True))


@pytest.mark.parametrize(("images", "count"), [(2, 0), (0, 0)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_none_at_all(images, count, channels_last):
    features = torch.randn(images, 4, 20, 30)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    out = FastROIAlign((7, 5), 0.25, 0, True)(features, torch.zeros(count, 5))
    assert out.shape == (count, 4, 7, 5)
    out.sum().backward()
    assert features.grad.shape == features.shape
    assert not features.grad.any()


def is_by_rows(align, features, boxes):
    """Whether the pooled values came by rows: they are then channels-last."""
    return align(features, boxes).is_contiguous(memory_format=torch.channels_last)


def test_few_boxes_are_not_worth_another_layout():
    align, features = FastROIAlign((7, 7), 1.0, 0, True), torch.randn(1, 4, 200, 200)
    few, many = make_boxes(3, (200, 200), 1.0, images=1), make_boxes(60, (200, 200), 1.0, images=1)
    assert not is_by_rows(align, features, few)
    assert is_by_rows(align, features, many)
    assert is_by_rows(align, features.contiguous(memory_format=torch.channels_last), few)
    assert align(features.bfloat16(), few).dtype == torch.bfloat16  # torchvision has none


def test_what_follows_the_operators_sees_torchvisions():
    align, features, boxes = FastROIAlign((7, 7), 0.5, 0, True), torch.randn(2, 4, 20, 30), torch.rand(9, 5)
    expected = torchvision_roi_align(features, boxes, (7, 7), 0.5, 0, True)
    traced = torch.jit.trace(align, (features, boxes))
    assert "torchvision::roi_align" in str(traced.graph)
    exported = torch.export.export(align, (features, boxes))
    assert any("torchvision.roi_align" in str(node.target) for node in exported.graph.nodes)
    compiled = torch.compile(align, backend="eager", fullgraph=True)
    for module in (traced, exported.module(), compiled):
        assert torch.equal(module(features, boxes), expected)
    with FakeTensorMode():
        assert align(torch.randn(2, 4, 20, 30), torch.rand(9, 5)).shape == expected.shape
    assert align(features.to("meta"), boxes.to("meta")).shape == expected.shape
    torch._dynamo.reset()


class Halved(ROIAlign):
    def forward(self, *args):
        return super().forward(*args) / 2


def test_modules_are_replaced_in_place_and_put_back():
    heads = nn.ModuleDict()
    heads["box"] = ROIPooler(7, (0.25, 0.125), 0, "ROIAlignV2")
    heads["mask"] = ROIPooler(14, (0.25,), 2, "ROIAlign")
    heads["rotated"] = ROIAlignRotated((7, 7), 0.25, 0)
    heads["own"] = Halved((7, 7), 0.25, 0)
    heads["patched"] = ROIAlign((7, 7), 0.25, 0)
    heads["patched"].forward = torch.add
    before = dict(heads.named_modules())
    classes = {name: type(module) for name, module in before.items()}
    seen = []
    heads["mask"].level_poolers[0].register_forward_hook(lambda *_: seen.append(1))
    undo = use_fast_roi_align(heads)
    assert dict(heads.named_modules()) == before
    fast = {name for name, module in before.items() if type(module) is FastROIAlign}
    assert fast == {"box.level_poolers.0", "box.level_poolers.1", "mask.level_poolers.0"}
    features = torch.randn(1, 4, 30, 30).contiguous(memory_format=torch.channels_last)
    boxes = [Boxes(make_boxes(20, (30, 30), 0.25, images=1)[:, 1:])]
    out = heads["mask"]([features], boxes)
    assert seen == [1]
    for again in (copy.deepcopy(heads["mask"]), pickle.loads(pickle.dumps(heads["box"]))):
        assert type(again.level_poolers[0]) is FastROIAlign
    undo.close()
    assert {name: type(module) for name, module in heads.named_modules()} == classes
    torch.testing.assert_close(heads["mask"]([features], boxes), out, rtol=0, atol=1e-5)
    with use_fast_roi_align(heads):
        assert type(heads["mask"].level_poolers[0]) is FastROIAlign
    assert type(heads["mask"].level_poolers[0]) is ROIAlign


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        pytest.param("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", marks=pytest.mark.long),
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    ],
)
def test_losses_and_gradients_of_whole_models_stay(config):
    cfg = with_our_backbone(zoo_cfg(config, MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE=24))
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = 64, [16, 16]
    model = build_model(cfg).train()
    randomise_norms_(model)
    batch = make_inputs(cfg)

    def step():
        torch.manual_seed(1)
        model.zero_grad()
        with EventStorage():
            losses = model(batch)
        sum(losses.values()).backward()
        return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    losses, gradients = step()
    keys = list(model.state_dict())
    use_fast_roi_align(model)
    assert any(type(module) is FastROIAlign for module in model.modules())
    again, gradients_again = step()
    assert list(model.state_dict()) == keys
    for name, loss in losses.items():
        torch.testing.assert_close(again[name], loss, rtol=1e-5, atol=1e-6)
    # All together: another order of sums puts a value or two on the other side of a ReLU.
    difference = sum(float((gradients_again[name] - value).square().sum()) for name, value in gradients.items())
    assert difference < 1e-3**2 * sum(float(value.square().sum()) for value in gradients.values())


@pytest.mark.parametrize(("capability", "lies_channels_last"), [("AVX2", False), ("AVX512", True)])
def test_what_tools_build_is_channels_last_where_that_is_faster(monkeypatch, capability, lies_channels_last):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cfg = with_our_backbone(zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 18, 32
    model = build_model(cfg).eval()
    randomise_norms_(model)
    plain = copy.deepcopy(model)
    speed_up_on_cpus_(model)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(type(pooler) is FastROIAlign for pooler in model.roi_heads.box_pooler.level_poolers)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, expected = model.backbone(image), plain.backbone(image)
    assert features["p2"].is_contiguous(memory_format=torch.channels_last)
    assert differ(features["p2"], expected["p2"]) < 1e-5
    assert model.backbone(image)["p2"].is_contiguous(memory_format=torch.channels_last) == lies_channels_last
    pickle.loads(pickle.dumps(copy.deepcopy(model)))
