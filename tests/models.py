"""Models that tests compare: Detectron2's configs, with random weights and norm statistics that are not trivial."""

from __future__ import annotations

from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from resnet_det import add_resnet_det_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
ZOO = Path(detectron2.__path__[0]) / "model_zoo" / "configs"

# KEY VALUE pairs where neither the size of the box head (half of an R-18's weights) nor the report matters.
QUICK = ["MODEL.ROI_BOX_HEAD.FC_DIM", "64", "TEST.DETECTIONS_PER_IMAGE", "10", "RESNET_DET.TEST.REPORT", "False"]
# Bottleneck blocks, one in each stage, of half the channels: a checkpoint has a fifth of an R-18's weights.
NARROW = ["MODEL.RESNETS.DEPTH", "14", "MODEL.RESNETS.STEM_OUT_CHANNELS", "32"]
NARROW += ["MODEL.RESNETS.WIDTH_PER_GROUP", "32", "MODEL.RESNETS.RES2_OUT_CHANNELS", "128"]

OUR_NAMES = {
    "build_resnet_backbone": "build_resnet_det_backbone",
    "build_resnet_fpn_backbone": "build_resnet_det_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_det_fpn_backbone",
}


def zoo_cfg(name: str, **overrides: object) -> CfgNode:
    """The config ``name`` of Detectron2's zoo, on the CPU, without weights; overrides as MODEL__MASK_ON=True."""
    cfg = read_config(ZOO / name)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    for key, value in overrides.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def read_config(path: Path) -> CfgNode:
    """The config of a yaml file, with our keys."""
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


def list_configs() -> list[Path]:
    """The yaml files of detectors in configs/; tests/classification looks at those of classifiers."""
    return sorted(path for path in CONFIGS.glob("*/**/*.yaml") if path.parent.name != "ImageNet-Classification")


def find_distinct_configs() -> list[str]:
    """One config of configs/ for each distinct model, whatever the schedule, data, weights and pixels."""
    models: dict[str, str] = {}
    for path in list_configs():
        model = read_config(path).MODEL
        model.WEIGHTS, model.PIXEL_MEAN, model.PIXEL_STD = "", [], []
        models.setdefault(model.dump(), str(path.relative_to(CONFIGS)))
    return list(models.values())


def with_our_backbone(cfg: CfgNode) -> CfgNode:
    ours = cfg.clone()
    ours.MODEL.BACKBONE.NAME = OUR_NAMES[cfg.MODEL.BACKBONE.NAME]
    return ours


def build_pair(cfg: CfgNode) -> tuple[nn.Module, nn.Module]:
    """Detectron2's model and ours, with the same random weights."""
    theirs = build_model(cfg)
    randomise_norms_(theirs)
    ours = build_model(with_our_backbone(cfg))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def randomise_norms_(model: nn.Module, seed: int = 0) -> None:
    """Give every norm other statistics than those it starts with: a fresh FrozenBN is the identity and hides errors.

    The last norm of a residual branch stays small, so that deep nets do not explode.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for name, module in model.named_modules():
        if "norm" not in name.split(".")[-1] or getattr(module, "weight", None) is None:
            continue
        block = model.get_submodule(name.rpartition(".conv")[0])
        last = name.endswith("conv3.norm" if hasattr(block, "conv3") else "conv2.norm")
        with torch.no_grad():
            module.weight.copy_(uniform(module.weight, 0.5, 1.5) * (0.3 if last else 1.0))
            module.bias.copy_(uniform(module.bias, -0.3, 0.3))
            if hasattr(module, "running_mean"):
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))


def write_random_weights(config: Path, opts: list[str], path: Path) -> Path:
    """Write to ``path`` weights of a detector that finds something: random, with class scores that differ."""
    cfg = read_config(config)
    cfg.merge_from_list(opts)
    torch.manual_seed(3)
    model = build_model(cfg)
    randomise_norms_(model)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3)
    torch.save({"model": model.state_dict()}, path)
    return path


def check_trains_and_detects(model: nn.Module, inputs: list[dict]) -> None:
    """Losses are finite, every trainable parameter gets a gradient, and the first image is looked at."""
    with EventStorage():
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "every trainable parameter gets a gradient"
    with torch.no_grad():
        assert "instances" in model.eval()(inputs[:1])[0]


def make_inputs(cfg: CfgNode, sizes: tuple[tuple[int, int], ...] = ((96, 128), (110, 90)), seed: int = 0) -> list[dict]:
    """A batch of random images (height, width) with two objects each, annotated with all that ``cfg`` trains on."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for height, width in sizes:
        target = Instances((height, width))
        boxes = torch.tensor([[8.0, 10.0, 60.0, 70.0], [30.0, 20.0, width - 4.0, height - 6.0]])
        target.gt_boxes = Boxes(boxes)
        target.gt_classes = torch.tensor([0, min(1, cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1)])
        if cfg.MODEL.MASK_ON:
            corners = [[[x0, y0, x1, y0, x1, y1, x0, (y0 + y1) / 2]] for x0, y0, x1, y1 in boxes.tolist()]
            masks = PolygonMasks(corners)
            bits = BitMasks.from_polygon_masks(masks, height, width)
            target.gt_masks = masks if cfg.INPUT.MASK_FORMAT == "polygon" else bits
        if cfg.MODEL.KEYPOINT_ON:
            points = torch.rand(2, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, 3, generator=generator)
            points[:, :, :2] = boxes[:, None, :2] + points[:, :, :2] * (boxes[:, None, 2:] - boxes[:, None, :2])
            points[:, :, 2] = 2
            target.gt_keypoints = Keypoints(points)
        image = torch.randint(
            0, 256, (len(cfg.MODEL.PIXEL_MEAN), height, width), generator=generator, dtype=torch.uint8
        )
        entry = {"image": image, "instances": target, "height": height, "width": width}
        if cfg.MODEL.LOAD_PROPOSALS:
            entry["proposals"] = Instances(
                (height, width), proposal_boxes=Boxes(boxes + 3), objectness_logits=torch.tensor([2.0, 1.0])
            )
        if cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
            classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            entry["sem_seg"] = torch.randint(0, classes, (height, width), generator=generator)
        batch.append(entry)
    return batch
