"""A prepared model is a model: called in any of Detectron2's ways, copied, pickled, moved, loaded into."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances
from models import make_inputs, randomise_norms_, with_our_backbone, zoo_cfg
from torch import nn

from resnet_det import make_resnet, prepare_for_inference
from resnet_det.modeling.fast_poolers import FastROIAlign

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"


def make_model(config=MASK_RCNN, depth=18):
    """A small one that detects something: many processors emulate bfloat16."""
    cfg = with_our_backbone(zoo_cfg(config))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = depth, 32, 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM, cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 32, 1
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS, cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = [32], 32
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 5, 10
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP, cfg.INPUT.MIN_SIZE_TEST = (64,), True, 64
    torch.manual_seed(3)
    model = build_model(cfg).eval()
    randomise_norms_(model)
    return cfg, model


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def prepared_pair(request):
    cfg, model = make_model()
    return cfg, model, prepare_for_inference(model, dtype=request.param)


@torch.no_grad()
def run_parts(model, cfg):
    """What backbone, RPN head and all heads put out for given boxes: nothing that has to be chosen."""
    inputs = make_inputs(cfg)
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    boxes = [Boxes(entry["instances"].gt_boxes.tensor) for entry in inputs]
    heads = model.roi_heads
    levels = [features[name] for name in heads.box_in_features]
    scores, deltas = heads.box_predictor(heads.box_head(heads.box_pooler(levels, boxes)))
    logits = heads.mask_head.layers(heads.mask_pooler(levels, boxes))
    rpn = model.proposal_generator.rpn_head([features[name] for name in model.proposal_generator.in_features])
    return [*features.values(), scores, deltas, logits, *rpn[0], *rpn[1]]


def differ(found, expected):
    return max(
        float((a.float() - b.float()).abs().max() / b.float().abs().max()) for a, b in zip(found, expected, strict=True)
    )


def test_parts_called_by_themselves_put_out_what_the_model_does(prepared_pair):
    cfg, model, prepared = prepared_pair
    difference = differ(run_parts(prepared, cfg), run_parts(model, cfg))
    assert difference < (1e-4 if prepared.prepared_dtype == torch.float32 else 0.1)
    assert prepared.backbone.bottom_up.res2[0].conv1.weight.dtype == prepared.prepared_dtype


def to_file_and_back(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), to_file_and_back])
def test_copies_are_the_same_and_run_on_their_own_weights(prepared_pair, again):
    cfg, _, prepared = prepared_pair
    copied = again(prepared)
    assert type(copied) is type(prepared)
    assert isinstance(copied, GeneralizedRCNN)
    expected = run_parts(prepared, cfg)
    assert differ(run_parts(copied, cfg), expected) == 0
    for parameter in copied.parameters():
        parameter.data.zero_()
    scores = run_parts(copied, cfg)[-1]
    assert not scores.any()
    assert not copied([make_inputs(cfg)[0]])[0]["instances"].pred_masks.isnan().any()
    assert differ(run_parts(prepared, cfg), expected) == 0


@torch.no_grad()
def test_every_way_of_calling_finds_the_same(prepared_pair):
    cfg, _, prepared = prepared_pair
    inputs = make_inputs(cfg)
    expected = [output["instances"] for output in prepared(inputs)]
    images = prepared.preprocess_image(inputs)
    features = prepared.backbone(images.tensor)
    proposals, _ = prepared.proposal_generator(images=images, features=features, gt_instances=None)
    by_parts, _ = prepared.roi_heads(images=images, features=features, proposals=proposals, targets=None)
    by_inference = prepared.inference(inputs, do_postprocess=False)
    given = [Instances(e.image_size, pred_boxes=e.pred_boxes, pred_classes=e.pred_classes) for e in by_parts]
    by_boxes = prepared.roi_heads.forward_with_given_boxes(features, given)
    for found, alike, masks, want in zip(by_parts, by_inference, by_boxes, expected, strict=True):
        assert torch.equal(found.scores, want.scores)
        assert torch.equal(found.pred_boxes.tensor, alike.pred_boxes.tensor)
        assert torch.equal(found.pred_masks, alike.pred_masks)
        assert torch.equal(found.pred_masks, masks.pred_masks)
        assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32


@torch.no_grad()
def test_augmentation_and_predictor_take_it(prepared_pair):
    is_old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)
    if prepared_pair[2].prepared_dtype == torch.bfloat16 and is_old:
        pytest.skip("torch 2.4 cannot paste masks of bfloat16 on a CPU, which Detectron2's augmentation does")
    cfg, _, prepared = prepared_pair
    image = make_inputs(cfg)[0]["image"]
    (augmented,) = GeneralizedRCNNWithTTA(cfg, prepared)([{"image": image, "height": 96, "width": 128}])
    assert len(augmented["instances"]) > 0
    predictor = DefaultPredictor(cfg)
    predictor.model = prepared
    assert len(predictor(image.permute(1, 2, 0).numpy())["instances"]) > 0


@torch.no_grad()
def test_every_thread_has_the_same_precision(prepared_pair):
    cfg, _, prepared = prepared_pair
    results = {}

    def run(number):
        with torch.no_grad():
            results[number] = prepared(make_inputs(cfg))[0]["instances"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = prepared(make_inputs(cfg))[0]["instances"]
    for number in range(2):
        assert torch.equal(results[number].scores, expected.scores)
        assert torch.equal(results[number].pred_masks, expected.pred_masks)
    assert not torch.is_autocast_enabled("cpu")


def test_states_of_models_prepared_alike_are_loaded(prepared_pair):
    cfg, _, prepared = prepared_pair
    _, other = make_model()
    nn.init.normal_(other.backbone.bottom_up.stem.conv1.weight, std=0.02)
    other = prepare_for_inference(other, dtype=prepared.prepared_dtype)
    loaded = copy.deepcopy(prepared)
    loaded.load_state_dict(other.state_dict())
    assert differ(run_parts(loaded, cfg), run_parts(other, cfg)) == 0


@pytest.mark.parametrize("strict", [True, False])
def test_states_of_plain_models_are_refused_whole(prepared_pair, strict):
    cfg, model, prepared = prepared_pair
    expected = run_parts(prepared, cfg)
    with pytest.raises(RuntimeError, match=r"convolutions have been changed \(backbone\..*\.norm\.\w+ is unknown"):
        prepared.load_state_dict(model.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match="prepare that again"):
        prepared.backbone.load_state_dict(model.backbone.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match="is missing"):
        prepared.load_state_dict({}, strict=strict)
    assert differ(run_parts(prepared, cfg), expected) == 0


@torch.no_grad()
def test_where_nothing_was_folded_plain_states_are_loaded():
    torch.manual_seed(0)
    net, other = make_resnet(18, norm="GN").eval(), make_resnet(18, norm="GN").eval()
    randomise_norms_(other)
    prepared = prepare_for_inference(net)
    prepared.load_state_dict(other.state_dict())
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(prepared(image)["res5"], other(image)["res5"], rtol=1e-4, atol=1e-5)


def test_it_is_moved(prepared_pair):
    cfg, _, prepared = prepared_pair
    moved = copy.deepcopy(prepared).to(torch.float64)
    assert differ(run_parts(moved, cfg), run_parts(prepared, cfg)) < 0.1
    assert moved.backbone.bottom_up.stem.conv1.weight.dtype == torch.float64
    meta = copy.deepcopy(prepared).to("meta")
    with torch.no_grad():
        assert meta.backbone(torch.randn(1, 3, 64, 96, device="meta"))["p5"].shape == (1, 32, 2, 3)


def test_it_is_not_trained_or_prepared_again(prepared_pair):
    _, _, prepared = prepared_pair
    around = nn.Sequential(prepared)
    around.train(around.eval().training)  # as Detectron2's evaluation leaves it
    assert prepared.train() is prepared
    assert not any(module.training for module in around.train().modules() if module is not around)
    parts = [prepared, prepared.roi_heads] if prepared.prepared_dtype == torch.bfloat16 else [prepared]
    for part in parts:
        with pytest.raises(ValueError, match=r"prepared already, in torch\.\w+: prepare the one"):
            prepare_for_inference(part)


def test_it_takes_no_more_memory_than_the_model():
    _, model = make_model()
    models = [model, *(prepare_for_inference(model, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))]
    kept = [sum(t.numel() * t.element_size() for t in one.state_dict().values()) for one in models]
    assert kept[1] <= kept[0]
    assert kept[2] < 0.6 * kept[0]


class Attending(nn.Module):
    """Layers whose parameters are used without being called, as in attention: without autocast, types would differ."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.attention = nn.MultiheadAttention(256, 4, batch_first=True)

    def forward(self, image):
        tokens = self.backbone(image)["res4"].flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_layers_of_other_projects_run(dtype):
    torch.manual_seed(0)
    net = make_resnet(18, out_features=["res4"])
    randomise_norms_(net)
    model = Attending(net).eval()
    image = torch.randn(1, 3, 64, 96)
    prepared = prepare_for_inference(model, dtype=dtype)
    assert differ([prepared(image)], [model(image)]) < (1e-4 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("pooler", ["ROIPool", "ROIAlign", "ROIAlignV2"])
@torch.no_grad()
def test_any_pooler_takes_bfloat16(pooler):
    cfg, model = make_model()
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = pooler
    again = build_model(cfg).eval()
    again.load_state_dict(model.state_dict())
    prepared = prepare_for_inference(again, dtype=torch.bfloat16)
    levels = prepared.roi_heads.box_pooler.level_poolers
    assert any(isinstance(level, ROIAlign) for level in levels) == pooler.startswith("ROIAlign")
    assert all(type(level) is FastROIAlign for level in levels) == pooler.startswith("ROIAlign")
    assert differ(run_parts(prepared, cfg), run_parts(again, cfg)) < 0.1


@pytest.mark.parametrize(
    ("config", "depth"),
    [
        pytest.param("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", 50, marks=pytest.mark.long),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", 18),
        ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", 18),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", 18),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", 18),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", 18),
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", 18),
        ("Misc/semantic_R_50_FPN_1x.yaml", 18),
    ],
)
@torch.no_grad()
def test_every_meta_architecture_runs_and_is_copied_in_bfloat16(config, depth):
    cfg, model = make_model(config, depth)
    prepared = prepare_for_inference(model, dtype=torch.bfloat16)
    assert isinstance(prepared, type(model))
    inputs = make_inputs(cfg)
    expected, found = prepared(inputs), pickle.loads(pickle.dumps(prepared))(inputs)
    assert [entry.keys() for entry in found] == [entry.keys() for entry in expected]
    for one, other in zip(found, expected, strict=True):
        for key in one.keys() & {"instances", "proposals"}:
            assert len(one[key]) == len(other[key]) > 0
            field = "scores" if key == "instances" else "objectness_logits"
            assert torch.equal(one[key].get(field), other[key].get(field))
        if "sem_seg" in one:
            assert torch.equal(one["sem_seg"], other["sem_seg"])
