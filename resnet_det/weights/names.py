"""Names of a ResNet's tensors in Detectron2, torchvision, timm and Caffe2 (MSRA), and the way between them.

Detectron2's are those of this package: ``stem.conv1.weight``, ``res2.0.conv1.norm.weight``, ``res2.0.shortcut.weight``;
``linear`` is the classification head. The maps are of names alone: no tensor is looked at. More namings are read, and
not written: that of Hugging Face's ``transformers``; torchvision's with the children of the net by their numbers
(``nn.Sequential(*resnet.children())``, as lightly and fastai have it), or with ``linear`` and ``shortcut`` in place of
``fc`` and ``downsample``, as nets for CIFAR have it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from resnet_det.errors import InputError

NAMINGS = ("detectron2", "torchvision", "timm", "caffe2")

# A tensor that every file of a kind has. "torch" is torchvision's and timm's ResNet, "timm_v2" timm's ResNetV2.
_MARKERS = {
    "detectron2": "res2.0.conv1.weight",
    "torch": "layer1.0.conv1.weight",
    "timm_v2": "stages.0.blocks.0.conv1.weight",
    "caffe2": "res2_0_branch2a_w",
    "huggingface": "encoder.stages.0.layers.0.layer.0.convolution.weight",
    "sequential": "4.0.conv1.weight",
}
# Another tensor that must stand beside the marker, where that alone is no proof.
_COMPANIONS = {"sequential": "7.0.conv1.weight"}
# Copies that follow a net slowly, or fall behind: of two nets in one file the other is meant.
_SECOND_NETS = ("student", "momentum", "encoder_k", "target")
_SEQUENCE = {"0": "conv1", "1": "bn1", **{str(3 + stage): f"layer{stage}" for stage in (1, 2, 3, 4)}}
_CONVS = ("conv1", "conv2", "conv3")
_SE = {"se.fc1": "se.fc1", "se.fc2": "se.fc2"}
_CAFFE2_CONVS = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_CAFFE2_LEAVES = {
    "w": "weight",
    "b": "bias",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
    "bn_gamma": "norm.weight",
    "bn_beta": "norm.bias",
    "bn_running_mean": "norm.running_mean",
    "bn_running_var": "norm.running_var",
    "gn_s": "norm.weight",
    "gn_b": "norm.bias",
}


def find_trunk(keys: Iterable[str]) -> tuple[str, str]:
    """Which kind of names a file has, and what stands before those of the ResNet ("", "module.", "backbone.", ...).

    Returns:
        A key of ``_MARKERS``, and the prefix.

    Raises:
        InputError: no ResNet's names are among ``keys``.
    """
    keys = list(keys)
    found = _find_trunks(keys)
    if not found:
        examples = ", ".join(keys[:3]) or "none"
        known = ", ".join((*NAMINGS, "huggingface"))
        raise InputError(f"no ResNet in the naming of {known}; the first of its {len(keys)} keys: {examples}")
    return min(found, key=lambda trunk: any(word in trunk[1] for word in _SECOND_NETS))


def has_trunk(keys: Iterable[str]) -> bool:
    """Whether a ResNet's names are among ``keys``."""
    return bool(_find_trunks(list(keys)))


def _find_trunks(keys: Sequence[str]) -> list[tuple[str, str]]:
    """The kind and prefix of each ResNet among ``keys``, of the first kind that there is any of."""
    for kind, marker in _MARKERS.items():
        prefixes = [key.removesuffix(marker) for key in keys if key == marker or key.endswith(f".{marker}")]
        if kind in _COMPANIONS:
            known = set(keys)
            prefixes = [prefix for prefix in prefixes if prefix + _COMPANIONS[kind] in known]
        if prefixes:
            return [(kind, prefix) for prefix in prefixes]
    return []


def naming_of(keys: Collection[str]) -> str:
    """Which of ``NAMINGS`` the ``keys`` follow, or "huggingface" or "sequential".

    timm's plain ResNets are named as torchvision's, and called so.

    Raises:
        InputError: no ResNet's names are among ``keys``.
    """
    kind, prefix = find_trunk(keys)
    if kind == "torch":
        names = {key.removeprefix(prefix) for key in keys}
        is_timm = _has_deep_stem(names) or _has_avg_down(names) or "layer1.0.se.fc1.weight" in names
        return "timm" if is_timm else "torchvision"
    return "timm" if kind == "timm_v2" else kind


def to_detectron2_names(keys: Iterable[str]) -> dict[str, str]:
    """Detectron2's name of each of ``keys`` that belongs to the ResNet, without the prefix.

    Raises:
        InputError: no ResNet's names are among ``keys``.
    """
    keys = list(keys)
    kind, prefix = find_trunk(keys)
    inside = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    if kind in ("huggingface", "sequential"):
        as_torch = {key: _from_huggingface(key) if kind == "huggingface" else _from_sequence(key) for key in inside}
        modules = _torch_modules([name for name in as_torch.values() if name])
        renamed = {key: name and _rename_module(name, modules) for key, name in as_torch.items()}
    elif kind == "caffe2":
        renamed = {key: _from_caffe2(key) for key in inside}
    elif kind == "detectron2":
        renamed = {key: key if re.match(r"(stem|res\d+|linear|final_norm)\.", key) else None for key in inside}
    else:
        modules = _torch_modules(inside) if kind == "torch" else _timm_v2_modules(inside)
        renamed = {key: _rename_module(key, modules) for key in inside}
    own = {prefix + key: name for key, name in renamed.items() if name is not None}
    if kind == "huggingface":  # the classifier stands beside the trunk, which is called resnet there
        head = f"{prefix.removesuffix('resnet.')}classifier.1."
        own |= {key: f"linear.{key.removeprefix(head)}" for key in keys if key.startswith(head)}
    return own


def from_detectron2_names(names: Collection[str], naming: str, *, avg_down: bool | None = None) -> dict[str, str]:
    """The name in ``naming`` of each of Detectron2's ``names`` of a ResNet; Caffe2 does not count batches.

    Args:
        avg_down: whether the shortcuts average (ResNet-D), which these names do not tell; None: if the stem is deep.

    Raises:
        InputError: ``naming`` has no name for a part of this ResNet.
    """
    deep = "stem.conv2.weight" in names
    preact = "final_norm.weight" in names
    if naming == "detectron2":
        return {name: name for name in names}
    if naming == "torchvision" and (deep or preact or "res2.0.se.fc1.weight" in names):
        raise InputError("torchvision has no names for deep stems, squeeze-and-excitation, pre-activation: take timm")
    if naming == "caffe2":
        renamed = {name: _to_caffe2(name) for name in names if not name.endswith("num_batches_tracked")}
    else:
        modules = _v2_table(deep) if preact else _torch_table(deep, deep if avg_down is None else avg_down)
        stages = "stages.{}.blocks.{}." if preact else "layer{}.{}."
        inverse = {own: theirs for theirs, own in modules.items()}
        renamed = {name: _rename_back(name, inverse, stages, first=0 if preact else 1) for name in names}
    lost = [name for name, new in renamed.items() if new is None]
    if lost:
        raise InputError(f"{naming} has no name for {', '.join(lost[:3])}" + (", ..." if len(lost) > 3 else ""))
    return renamed


def _has_deep_stem(names: Collection[str]) -> bool:
    return "conv1.0.weight" in names


def _has_avg_down(names: Collection[str]) -> bool:
    return any(".downsample.2." in name for name in names)


def _torch_table(deep: bool, avg_down: bool) -> dict[str, str]:
    """torchvision's and timm's module names, those in a block without the block's own, to ours."""
    if deep:
        table = {"conv1.0": "stem.conv1", "conv1.1": "stem.conv1.norm", "conv1.3": "stem.conv2"}
        table |= {"conv1.4": "stem.conv2.norm", "conv1.6": "stem.conv3", "bn1": "stem.conv3.norm"}
    else:
        table = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
    table["fc"] = "linear"
    first = 1 if avg_down else 0  # the average pooling is number 0
    table |= {f".downsample.{first}": ".shortcut", f".downsample.{first + 1}": ".shortcut.norm"}
    for number, conv in enumerate(_CONVS, start=1):
        table |= {f".{conv}": f".{conv}", f".bn{number}": f".{conv}.norm", f".{conv}_offset": f".{conv}_offset"}
    return table | {f".{theirs}": f".{own}" for theirs, own in _SE.items()}


def _v2_table(deep: bool) -> dict[str, str]:
    """The same for timm's ResNetV2."""
    if deep:
        table = {"stem.norm1": "stem.conv1.norm", "stem.norm2": "stem.conv2.norm"}
        table |= {f"stem.{conv}": f"stem.{conv}" for conv in _CONVS}
    else:
        table = {"stem.conv": "stem.conv1"}
    table |= {"norm": "final_norm", "head.fc": "linear", ".downsample.conv": ".shortcut"}
    for number, conv in enumerate(_CONVS, start=1):
        table |= {f".{conv}": f".{conv}", f".norm{number}": f".{conv}.norm"}
    return table


def _torch_modules(keys: list[str]) -> dict[str, str]:
    # The usual nets for CIFAR call the head and the projections otherwise.
    others = {"linear": "linear", ".shortcut.0": ".shortcut", ".shortcut.1": ".shortcut.norm"}
    table = _torch_table(_has_deep_stem(keys), _has_avg_down(keys)) | others
    return _expand(table, keys, r"layer(\d+)\.(\d+)", first=1)


def _timm_v2_modules(keys: list[str]) -> dict[str, str]:
    return _expand(_v2_table("stem.conv1.weight" in keys), keys, r"stages\.(\d+)\.blocks\.(\d+)", first=0)


def _expand(table: dict[str, str], keys: list[str], block: str, *, first: int) -> dict[str, str]:
    """``table`` with the modules of each block that occurs in ``keys``; stage ``first`` is res2."""
    modules = {theirs: own for theirs, own in table.items() if not theirs.startswith(".")}
    for key in keys:
        found = re.match(block, key)
        if found:
            own_block = f"res{int(found[1]) - first + 2}.{found[2]}"
            modules |= {found[0] + t: own_block + own for t, own in table.items() if t.startswith(".")}
    return modules


def _rename_module(key: str, modules: dict[str, str]) -> str | None:
    module, _, leaf = key.rpartition(".")
    return f"{modules[module]}.{leaf}" if module in modules else None


def _rename_back(name: str, inverse: dict[str, str], stages: str, *, first: int) -> str | None:
    module, _, leaf = name.rpartition(".")
    found = re.fullmatch(r"res(\d+)\.(\d+)(\..+)", module)
    inner = inverse.get(found[3] if found else module)
    if inner is None:
        return None
    if found:
        inner = stages.format(int(found[1]) - 2 + first, found[2]) + inner.removeprefix(".")
    return f"{inner}.{leaf}"


def _from_huggingface(key: str) -> str | None:
    """torchvision's name of a tensor of transformers' ResNet."""
    key = key.replace(".convolution.", ".0.").replace(".normalization.", ".1.")
    if key.startswith("embedder.embedder."):
        part, _, leaf = key.removeprefix("embedder.embedder.").partition(".")
        return f"{('conv1', 'bn1')[int(part)]}.{leaf}" if part in ("0", "1") else None
    found = re.fullmatch(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.(\d+)|shortcut)\.([01])\.(\w+)", key)
    if not found:
        return None
    block = f"layer{int(found[1]) + 1}.{found[2]}"
    if found[4] is None:
        return f"{block}.downsample.{found[5]}.{found[6]}"
    return f"{block}.{('conv', 'bn')[int(found[5])]}{int(found[4]) + 1}.{found[6]}"


def _from_sequence(key: str) -> str | None:
    """torchvision's name of a tensor of its ResNet as a sequence of its children."""
    number, _, rest = key.partition(".")
    return f"{_SEQUENCE[number]}.{rest}" if number in _SEQUENCE else None


def _from_caffe2(key: str) -> str | None:
    found = re.fullmatch(rf"(.+?)_({'|'.join(_CAFFE2_LEAVES)})", key)
    if not found:
        return None
    leaf = _CAFFE2_LEAVES[found[2]]
    if found[1] in ("conv1", "res_conv1"):
        return f"stem.conv1.{leaf}"
    if found[1] == "pred":
        return f"linear.{leaf}"
    block = re.fullmatch(r"(res\d+)_(\d+)_(branch\w+)", found[1])
    return f"{block[1]}.{block[2]}.{_CAFFE2_CONVS[block[3]]}.{leaf}" if block and block[3] in _CAFFE2_CONVS else None


def _to_caffe2(name: str) -> str | None:
    inverse = {}
    for theirs, own in _CAFFE2_LEAVES.items():
        inverse.setdefault(own, theirs)
    convs = {own: theirs for theirs, own in _CAFFE2_CONVS.items()}
    found = re.fullmatch(r"(stem\.conv1|linear|(res\d+)\.(\d+)\.(\w+))\.(.+)", name)
    if not found or found[5] not in inverse:
        return None
    leaf = inverse[found[5]]
    if found[1] == "linear":
        return f"pred_{leaf}"
    if found[1] == "stem.conv1":
        return f"conv1_{leaf}" if found[5] == "weight" else f"res_conv1_{leaf}"
    return f"{found[2]}_{found[3]}_{convs[found[4]]}_{leaf}" if found[4] in convs else None
