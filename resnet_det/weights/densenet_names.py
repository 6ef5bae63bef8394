"""Names of a DenseNet's tensors in torchvision (and timm), and the way to and from those of this package.

Ours are those of a net with stages: ``res2.0.conv1.weight`` is of the first layer of the first dense block, and
``res3.0.conv.weight`` of the transition before the second, whose first layer is ``res3.1``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_WHOLE = {
    "features.conv0": "stem.conv1",
    "features.norm0": "stem.conv1.norm",
    "features.norm5": "final_norm",
    "classifier": "linear",
}
_WHOLE_BACK = {own: theirs for theirs, own in _WHOLE.items()}
# In the files that are downloaded, norm1 is called norm.1, and so on.
_LAYER = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.(norm|conv)\.?([12])")
_TRANSITION = re.compile(r"features\.transition(\d+)\.(norm|conv)")
_BLOCK = re.compile(r"res(\d+)\.(\d+)\.conv([12]?)(\.norm)?")


def is_densenet(names: Collection[str]) -> bool:
    """Whether these of our names are a DenseNet's: it has a transition."""
    return "res3.0.conv.weight" in names


def to_own(key: str) -> str | None:
    """Our name of torchvision's ``key``; None if there is none."""
    module, _, leaf = key.rpartition(".")
    if found := _LAYER.fullmatch(module):
        stage, layer = int(found[1]) + 1, int(found[2]) - (found[1] == "1")
        own = f"res{stage}.{layer}.conv{found[4]}"
    elif found := _TRANSITION.fullmatch(module):
        own = f"res{int(found[1]) + 2}.0.conv"
    else:
        return f"{_WHOLE[module]}.{leaf}" if module in _WHOLE else None
    return f"{own}.norm.{leaf}" if "norm" in found.groups() else f"{own}.{leaf}"


def from_own(name: str) -> str | None:
    """torchvision's name of our ``name``; None if there is none."""
    module, _, leaf = name.rpartition(".")
    found = _BLOCK.fullmatch(module)
    if not found:
        return f"{_WHOLE_BACK[module]}.{leaf}" if module in _WHOLE_BACK else None
    stage, kind = int(found[1]), "norm" if found[4] else "conv"
    if not found[3]:
        return f"features.transition{stage - 2}.{kind}.{leaf}"
    return f"features.denseblock{stage - 1}.denselayer{int(found[2]) + (stage == 2)}.{kind}{found[3]}.{leaf}"
