"""What has been measured: a JSON file for each experiment and seed in the output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError
from resnet_det.explain.experiment import Experiment, Numbers
from resnet_det.explain.verdicts import DRAWS, SEEDS, Verdict
from resnet_det.outputs import make_folder

DRAWN = "drawn"  # the setting that each seed has of its own
_KEYS = {"experiment", "variant", "seed", "settings", "data", "numbers", "command", "machine", "seconds", "failure"}


@dataclass(frozen=True)
class Measured:
    """The numbers of one experiment and seed, and what they are about.

    Attributes:
        variant: "" for nets that were trained for it, "weights" for nets from elsewhere.
        settings: sizes and files: what it was measured with.
        data: the images, in words.
        seconds: that it took, with the training of its nets, whenever that was.
        failure: what kept it from being measured; then there are no numbers.
    """

    experiment: str
    variant: str
    seed: int
    settings: Mapping[str, Any]
    data: str
    numbers: Mapping[str, Any]
    command: str
    machine: Mapping[str, Any]
    seconds: float
    failure: str = ""


class Store:
    """The files results/NAME-seedN.json of a folder."""

    def __init__(self, output: Path) -> None:
        self.folder = output / "results"

    def read_all(self, experiment: str, variant: str) -> list[Measured]:
        """Of all seeds, in their order, whatever their settings are.

        Raises:
            InputError: there is a file of such a name, and it is not one of these.
        """
        stem = self._path(experiment, variant, 0).name.removesuffix("0.json")
        paths = [path for path in self.folder.glob(f"{stem}*.json") if path.stem.removeprefix(stem).isdigit()]
        return sorted(map(self._read, paths), key=lambda one: one.seed)

    def find_all(self, experiment: str, variant: str) -> list[Measured]:
        """Of all seeds, in their order.

        Raises:
            InputError: see :meth:`read_all`; or their settings differ.
        """
        found = self.read_all(experiment, variant)
        for other in found[1:]:
            drawn = {key: one for key, one in found[0].settings.items() if key == DRAWN}
            check_settings(found[0], {**other.settings, **drawn}, f"seed {other.seed}")
        return found

    def write(self, measured: Measured) -> Path:
        """Write it, in place of what was measured before."""
        path = self._path(measured.experiment, measured.variant, measured.seed)
        make_folder(self.folder)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(vars(measured)) + "\n", encoding="utf-8")
        temporary.replace(path)
        return path

    def _path(self, experiment: str, variant: str, seed: int) -> Path:
        return self.folder / f"{experiment}{'-' if variant else ''}{variant}-seed{seed}.json"

    @staticmethod
    def _read(path: Path) -> Measured:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); was it written to the end? Take it away") from None
        if not isinstance(content, dict) or set(content) != _KEYS:
            raise InputError(f"{path}: not what explain_resnet.py has written; take it away")
        return Measured(**content)


def collect_numbers(seeds: Sequence[Measured]) -> list[Numbers]:
    """Of those seeds that have been measured to the end."""
    return [one.numbers for one in seeds if not one.failure]


def conclude(experiment: Experiment, seeds: Sequence[Measured]) -> Verdict:
    """What follows from all seeds of an experiment in one variant."""
    numbers = collect_numbers(seeds)
    claims = experiment.judge(numbers) if numbers else []
    if any(one.variant == "weights" for one in seeds):
        claims = [replace(one, repeats=DRAWS) if one.repeats == SEEDS else one for one in claims]
    return Verdict(claims, list(dict.fromkeys(one.failure for one in seeds if one.failure)))


def check_settings(
    measured: Measured, settings: Mapping[str, Any], of: str, remedy: str = "--overwrite measures anew"
) -> None:
    """
    Args:
        of: whose the settings are.
        remedy: what makes them the same.

    Raises:
        InputError: it was measured with other settings, and numbers of both could not stand side by side.
    """
    names = [name for name in {**settings, **measured.settings} if settings.get(name) != measured.settings.get(name)]
    if names:
        before = _tell(measured.settings, names)
        raise InputError(
            f"{measured.experiment}, seed {measured.seed}, was measured with {before}, and {of} has "
            f"{_tell(settings, names)}: {remedy}, and another --output keeps both"
        )


def _tell(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {settings.get(name)}" for name in names)
