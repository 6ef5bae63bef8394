"""What specs of nets with stages share: names, outputs, and how they are checked. No torch."""

from __future__ import annotations

from collections.abc import Sequence

NORM_NAMES = ("", "FrozenBN", "BN", "SyncBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def name_stages(count: int) -> tuple[str, ...]:
    """Names of the first ``count`` stages: res2, res3, ..."""
    return tuple(f"res{number}" for number in range(2, 2 + count))


class StagesSpec:
    """What specs of nets with stages share. They have ``out_features``, ``num_classes`` and ``freeze_at``."""

    @property
    def num_stages(self) -> int:
        raise NotImplementedError

    @property
    def stage_names(self) -> tuple[str, ...]:
        """res2, res3, ...: a name for each stage."""
        return name_stages(self.num_stages)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What may be in ``out_features``, in the order of computation."""
        return ("stem", *self.stage_names, *(["linear"] if self.num_classes else []))

    @property
    def built_stages(self) -> tuple[str, ...]:
        """Names of the stages up to the last one in ``out_features``."""
        last = max(self.feature_names.index(name) for name in self.out_features)
        return self.stage_names[:last]


def fill_stages(spec: StagesSpec, **defaults: tuple) -> None:
    """Set each of the fields named, and ``out_features``, to a tuple: the default where it is None."""
    for name, default in {**defaults, "out_features": spec.stage_names[-1:]}.items():
        value = getattr(spec, name)
        object.__setattr__(spec, name, default if value is None else tuple(value))


def check_stages(spec: StagesSpec, lists: Sequence[str]) -> list[str]:
    """What is wrong with that which all nets with stages have: ``lists`` of a value for each stage, norm, outputs."""
    stages, problems = ", ".join(spec.stage_names), []
    for name in lists:
        values = getattr(spec, name)
        if len(values) != spec.num_stages:
            problems.append(
                f"{name} is {list(values)}, and there are {spec.num_stages} stages: give a value for each of {stages}"
            )
    if spec.freeze_at > 1 + spec.num_stages:
        most = 1 + spec.num_stages
        problems.append(f"freeze_at is {spec.freeze_at}; choose 0 (nothing) to {most} (stem and {stages})")
    if not callable(spec.norm) and spec.norm not in NORM_NAMES:
        problems.append(f"norm is {spec.norm!r}; choose one of {', '.join(filter(None, NORM_NAMES))}")
    return problems + check_names("out_features", spec.out_features, spec.feature_names)


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Problems of a list of ``names`` that must be out of ``known``, not empty and without repeats."""
    if not names:
        return [f"{what} is empty; choose from {', '.join(known)}"]
    problems = [f"{what} has {name!r}; choose from {', '.join(known)}" for name in names if name not in known]
    if len(set(names)) < len(names):
        problems.append(f"{what} is {list(names)}; name each only once")
    return problems
