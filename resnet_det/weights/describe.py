"""Say in words which net a set of tensors, or a spec, is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from resnet_det.densenet_specs import DENSENETS, DenseNetSpec
from resnet_det.depths import DEPTHS
from resnet_det.specs import ResNetSpec


def describe_resnet(block: str, stage_blocks: Sequence[int], num_groups: int = 1, width_per_group: int = 64) -> str:
    """The name of a ResNet: "ResNet-50", "ResNeXt-101-32x8d", "Wide ResNet-50-2", or its blocks."""
    known = {(spec.block, spec.stage_blocks): depth for depth, spec in DEPTHS.items()}
    depth = known.get((block, tuple(stage_blocks)))
    if depth is None and block == "basic" and len(stage_blocks) == 3 and len(set(stage_blocks)) == 1:
        return f"CIFAR ResNet-{6 * stage_blocks[0] + 2}"  # arXiv 1512.03385, section 4.2
    if depth is None:
        return f"ResNet of {block} blocks {', '.join(map(str, stage_blocks))}"
    if num_groups > 1:
        return f"ResNeXt-{depth}-{num_groups}x{width_per_group}d"
    if width_per_group != 64:
        return f"Wide ResNet-{depth}-{width_per_group / 64:g}"
    return f"ResNet-{depth}"


def describe_densenet(stage_layers: Sequence[int], growth_rate: int) -> str:
    """The name of a DenseNet: "DenseNet-121", or its layers."""
    for depth, spec in DENSENETS.items():
        if (spec.stage_layers, spec.growth_rate) == (tuple(stage_layers), growth_rate):
            return f"DenseNet-{depth}"
    return f"DenseNet of {', '.join(map(str, stage_layers))} layers that add {growth_rate} channels"


def describe_spec(spec: ResNetSpec | DenseNetSpec) -> str:
    if isinstance(spec, DenseNetSpec):
        return describe_densenet(spec.stage_layers, spec.growth_rate)
    name = describe_resnet(spec.block, spec.stage_blocks, spec.num_groups, spec.width_per_group)
    stages = zip(spec.stage_names, spec.attention_stages, strict=True)
    return _with_attention(name, [stage for stage, has in stages if has])


def _with_attention(name: str, stages: Sequence[str]) -> str:
    return f"{name} with attention in {', '.join(stages)}" if stages else name


def describe_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """The name of the net whose tensors, by Detectron2's names, have these ``shapes``."""
    found = [match for name in shapes if (match := re.match(r"res(\d+)\.(\d+)\.", name))]
    if not found:
        return "no ResNet"
    stage_blocks = [0] * (max(int(match[1]) for match in found) - 1)
    for match in found:
        stage_blocks[int(match[1]) - 2] = max(stage_blocks[int(match[1]) - 2], int(match[2]) + 1)
    conv1, conv2 = (shapes.get(f"res2.0.{name}.weight", ()) for name in ("conv1", "conv2"))
    if "res2.0.conv3.weight" not in shapes and tuple(conv1[2:]) == (1, 1) and conv2:
        # The first of a stage's blocks is the transition, but for res2's.
        return describe_densenet([count - (index > 0) for index, count in enumerate(stage_blocks)], conv2[0])
    if "res2.0.conv3.weight" not in shapes:
        return describe_resnet("basic", stage_blocks)
    width, per_group = shapes["res2.0.conv2.weight"][:2] if "res2.0.conv2.weight" in shapes else (64, 64)
    groups = width // per_group
    stages = sorted({name.partition(".")[0] for name in shapes if ".attention." in name})
    return _with_attention(describe_resnet("bottleneck", stage_blocks, groups, width // groups), stages)
