"""Costs by part: against plain counts, and pinned where they are known."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.export.flatten import TracingAdapter
from detectron2.modeling import build_model
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from models import with_our_backbone, zoo_cfg

from resnet_det import make_resnet
from resnet_det.analysis import analyze_model, calibrate_norms_, format_costs, plot_costs, write_costs
from resnet_det.modeling import make_fpn

WIDE = {"width_per_group": 128}
X32X8D = {"num_groups": 32, "width_per_group": 8}
X64X4D = {"num_groups": 64, "width_per_group": 4}
MSRA = {"stride_in_1x1": True}
# GMACs of the trunk at 224x224, with FrozenBN and FREEZE_AT 2 (norms are counted where nothing is trained).
TRUNK = [
    (18, {}, 1.817),
    (34, {}, 3.667),
    (50, MSRA, 3.866),
    (50, {}, 4.098),
    (101, MSRA, 7.579),
    (101, {}, 7.810),
    (152, MSRA, 11.291),
    (152, {}, 11.522),
    (50, {"num_groups": 32, "width_per_group": 4}, 4.241),
    (101, X32X8D, 16.430),
    (101, X64X4D, 15.476),
    (50, WIDE, 11.409),
    (101, WIDE, 22.764),
]
# GMACs of trunk and FPN at 800x1344.
PYRAMID = [
    (18, {}, 93.66),
    (34, {}, 133.31),
    (50, MSRA, 143.77),
    (50, {}, 148.73),
    (101, MSRA, 223.32),
    (101, {}, 228.27),
    (152, MSRA, 302.87),
    (152, {}, 307.82),
    (50, {"num_groups": 32, "width_per_group": 4}, 151.81),
    (101, X32X8D, 412.99),
    (101, X64X4D, 392.55),
    (50, WIDE, 305.40),
    (101, WIDE, 548.72),
]


def deep_ones_are_long(cases):
    return [pytest.param(*case, marks=[pytest.mark.long] * (case[0] == 152 or case[2] > 300)) for case in cases]


def gmacs(model, height, width):
    """Counted on 32x32: costs of convolutions and norms are proportional to the area, if sides are multiples of 32."""
    assert height % 32 == width % 32 == 0
    model = model.to_empty(device="cpu")  # weights do not count
    counted = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, 32, 32))
    total = counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return total * (height * width // 32**2) / 1e9


@pytest.mark.parametrize(("depth", "arguments", "expected"), deep_ones_are_long(TRUNK))
def test_gmacs_of_the_trunk(depth, arguments, expected):
    with torch.device("meta"):
        model = make_resnet(depth, norm="FrozenBN", freeze_at=2, **arguments)
    assert gmacs(model, 224, 224) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("depth", "arguments", "expected"), deep_ones_are_long(PYRAMID))
def test_gmacs_of_trunk_and_fpn(depth, arguments, expected):
    with torch.device("meta"):
        backbone = make_resnet(depth, norm="FrozenBN", freeze_at=2, **arguments)
        fpn = make_fpn(backbone, ("res2", "res3", "res4", "res5"))
    assert gmacs(fpn, 800, 1344) == pytest.approx(expected, abs=6e-3)


@pytest.fixture(scope="module")
def faster_costs():
    cfg = with_our_backbone(zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", MODEL__RESNETS__DEPTH=18))
    model = build_model(cfg)
    image = torch.rand(3, 128, 160) * 255
    calibrate_norms_(model, image)
    return model, analyze_model(model, image, repeats=1)


def test_parts_add_up_to_the_whole(faster_costs):
    model, costs = faster_costs
    assert [cost.name for cost in costs] == ["stem", "res2", "res3", "res4", "res5", "FPN", "RPN", "ROI heads", "total"]
    *parts, total = costs
    assert sum(cost.parameters for cost in parts) == total.parameters == 28_674_656
    assert sum(cost.gmacs for cost in parts) == pytest.approx(total.gmacs, rel=1e-3)
    assert sum(cost.activations for cost in parts) == pytest.approx(total.activations, rel=1e-3)
    assert sum(cost.latency_ms for cost in parts) < total.latency_ms
    by_name = {cost.name: cost for cost in costs}
    assert by_name["FPN"].parameters == 2_607_104
    # 7x7 convolution: 64 x 3 x 49 per output pixel.
    assert by_name["stem"].gmacs == pytest.approx(64 * 3 * 49 * 64 * 80 / 1e9, rel=0.05)
    assert by_name["ROI heads"].gmacs > 0.5, "the heads have proposals to work on"
    assert model.backbone.bottom_up.res2[0]._forward_hooks == {}


def test_activations_are_those_that_fvcore_counts(faster_costs):
    model, _ = faster_costs
    image = torch.rand(3, 64, 96) * 255
    (*_, total) = analyze_model(model, image, repeats=0)
    with torch.no_grad():
        adapted = TracingAdapter(model, [{"image": image, "height": 64, "width": 96}], allow_non_tensor=True)
        counted = ActivationCountAnalysis(adapted, adapted.flattened_inputs)
        counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert total.activations == counted.total() > 0


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("retinanet_R_50_FPN_1x", "head"),
        ("faster_rcnn_R_50_C4_1x", "ROI heads"),
    ],
)
def test_other_detectors(name, last):
    model = build_model(with_our_backbone(zoo_cfg(f"COCO-Detection/{name}.yaml")))
    *parts, total = analyze_model(model, torch.rand(3, 96, 128) * 255, repeats=0)
    assert parts[-1].name == last
    assert sum(cost.parameters for cost in parts) == total.parameters
    assert total.latency_ms is None


def test_table_json_and_plot(faster_costs, tmp_path):
    _, costs = faster_costs
    lines = format_costs(costs).splitlines()
    assert lines[-1].split()[:2] == ["total", "28,674,656"]
    write_costs({"R-18": costs}, tmp_path / "costs.json")
    assert json.loads((tmp_path / "costs.json").read_text())["R-18"]["FPN"]["parameters"] == 2_607_104
    plot_costs({"R-18": costs, "again": costs}, tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 5000
