"""Feature maps, and what raises the score of a detection: against the model's own scores and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from models import randomise_norms_

from resnet_det.analysis.features import (
    class_logit,
    explain_detection,
    map_activations,
    record_features,
    share_inside,
)
from resnet_det.errors import InputError

BOX = torch.tensor([20.0, 12.0, 75.0, 60.0])
CONFIGS = {
    "rcnn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "c4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
}


@pytest.fixture
def make(default_cfg, request):
    """A small model with random weights."""

    def build(kind, architecture=None):
        default_cfg.merge_from_file(str(request.config.rootpath / "configs" / CONFIGS[kind]))
        default_cfg.MODEL.DEVICE, default_cfg.MODEL.WEIGHTS = "cpu", ""
        default_cfg.MODEL.META_ARCHITECTURE = architecture or default_cfg.MODEL.META_ARCHITECTURE
        default_cfg.MODEL.RESNETS.DEPTH, default_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
        default_cfg.MODEL.FPN.OUT_CHANNELS, default_cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32, 64
        default_cfg.MODEL.ROI_HEADS.NUM_CLASSES = default_cfg.MODEL.RETINANET.NUM_CLASSES = 5
        default_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = default_cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
        torch.manual_seed(5)
        model = build_model(default_cfg).eval()
        randomise_norms_(model)
        for name, parameter in model.named_parameters():
            if "cls_score.weight" in name:
                torch.nn.init.normal_(parameter, std=0.03)
        return model

    return build


@pytest.fixture
def inputs():
    return {"image": torch.rand(3, 80, 100) * 255, "height": 80, "width": 100}


def test_maps_are_the_means_of_what_the_backbone_puts_out(make, inputs):
    model = make("rcnn")
    maps = map_activations(model, inputs)
    assert [m.level for m in maps] == ["res2", "res3", "res4", "res5", "p2", "p3", "p4", "p5", "p6"]
    assert maps[0].shape == (64, 24, 32), "96 x 128 with padding"
    assert [tuple(m.values.shape) for m in maps[:4]] == [(20, 25), (10, 13), (5, 7), (3, 4)], "80 x 100 without"
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([inputs]).tensor)
    torch.testing.assert_close(maps[5].values, features["p3"][0].abs().mean(0)[:10, :13])


def test_hooks_are_taken_away_again(make, inputs):
    model = make("rcnn")
    with pytest.raises(RuntimeError, match="stop"), record_features(model) as recorded:
        raise RuntimeError("stop")
    map_activations(model, inputs)
    assert recorded == {}
    assert not model.backbone._forward_hooks
    assert not model.backbone.bottom_up.res3._forward_hooks


@pytest.mark.parametrize("kind", ["rcnn", "c4"])
def test_the_logits_give_the_score_the_model_gives_that_box(make, inputs, kind):
    model = make(kind)
    images = model.preprocess_image([inputs])
    with torch.no_grad():
        features = model.backbone(images.tensor)
        logits = torch.stack([class_logit(model, features, BOX, class_id) for class_id in range(6)])
        proposal = Instances((80, 100), proposal_boxes=Boxes(BOX[None]), objectness_logits=torch.zeros(1))
        (found,), _ = model.roi_heads(images, features, [proposal])
    scores = torch.softmax(logits, 0)
    assert len(found) == 5
    torch.testing.assert_close(found.scores, scores[found.pred_classes])
    assert scores[:5].max() / scores[:5].min() > 1.05


def test_the_logit_of_a_retinanet_gives_the_score_of_its_detection(make, inputs):
    model = make("retinanet")
    with torch.no_grad():
        found = model([inputs])[0]["instances"]
        features = model.backbone(model.preprocess_image([inputs]).tensor)
        # A box that the edge of the image cuts off is not the one that the anchor gave.
        boxes = found.pred_boxes.tensor
        whole = (boxes[:, :2].min(1).values > 0) & (boxes[:, 2] < 100) & (boxes[:, 3] < 80)
        first = int(torch.nonzero(whole)[0])
        logit = class_logit(model, features, boxes[first], int(found.pred_classes[first]))
    assert torch.sigmoid(logit).item() == pytest.approx(found.scores[first].item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["rcnn", "cascade", "retinanet"])
def test_gradients_equal_finite_differences(make, inputs, kind):
    model = make(kind).double()
    explanations = [explain_detection(model, inputs, BOX, class_id) for class_id in range(5)]
    class_id, explanation = next((i, e) for i, e in enumerate(explanations) if e.grad_cam.max() > 0)
    images = model.preprocess_image([inputs])
    with torch.no_grad():
        features = model.backbone(images.tensor)
    name = explanation.level
    feature = features[name]

    def logit(changed):
        with torch.no_grad():
            return class_logit(model, features | {name: changed}, BOX, class_id).item()

    assert explanation.logit == pytest.approx(logit(feature), rel=1e-6)
    _, channels, height, width = feature.shape
    step = 1e-6
    # HiResCAM: what happens when the features of one place grow by a share of themselves.
    local = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            change = torch.zeros_like(feature)
            change[0, :, y, x] = step * feature[0, :, y, x]
            local[y, x] = (logit(feature + change) - logit(feature - change)) / (2 * step)
    # Grad-CAM: the weight of a channel is what happens when all of it grows.
    weights = torch.zeros(channels, dtype=torch.float64)
    for channel in range(channels):
        change = torch.zeros_like(feature)
        change[0, channel] = step
        weights[channel] = (logit(feature + change) - logit(feature - change)) / (2 * step * height * width)
    grad_cam = (weights[:, None, None] * feature[0]).sum(0)
    rows, columns = explanation.local.shape
    for got, want in ((explanation.local, local), (explanation.grad_cam, grad_cam)):
        want = want[:rows, :columns].clamp(min=0)
        assert want.max() > 0
        assert got.max() == 1
        torch.testing.assert_close(got, want / want.max(), rtol=1e-3, atol=1e-4)


def test_the_map_of_a_detection_lies_in_its_box(make, inputs):
    explanation = explain_detection(make("rcnn"), inputs, BOX, 1, level="p2")
    assert explanation.level == "p2"
    area = (75 - 20) * (60 - 12) / (80 * 100)
    assert share_inside(explanation.local, BOX, (80, 100)) > 0.9 > area


def test_a_level_behind_the_chosen_one_can_be_asked_for(make, inputs):
    model = make("rcnn")
    assert explain_detection(model, inputs, BOX, 1, level="res5").level == "res5"
    with pytest.raises(InputError, match=r"--level res9: no such feature map; there are res2, .*p6"):
        explain_detection(model, inputs, BOX, 1, level="res9")
    with pytest.raises(InputError, match="--level p6: the score of this detection does not depend on it"):
        explain_detection(model, inputs, BOX, 1, level="p6")


def test_models_without_classes_cannot_be_explained(make, inputs):
    with pytest.raises(InputError, match="scores of ProposalNetwork cannot be explained; those of R-CNN and RetinaNet"):
        explain_detection(make("rcnn", "ProposalNetwork"), inputs, BOX, 1)


def test_cells_on_the_edge_count_in_part():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert share_inside(values, torch.tensor([0.0, 0.0, 10.0, 20.0]), (20, 20)) == pytest.approx(0.4)
    assert share_inside(values, torch.tensor([5.0, 0.0, 15.0, 10.0]), (20, 20)) == pytest.approx(0.15)
    assert math.isnan(share_inside(torch.zeros(2, 2), torch.tensor([0.0, 0.0, 1.0, 1.0]), (20, 20)))
