"""explained.html: each statement, what the literature says, what was measured, and whether that confirms it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError
from resnet_det.explain.catalog import EXPERIMENTS
from resnet_det.explain.experiment import Experiment, Shown
from resnet_det.explain.recipe import Recipe
from resnet_det.explain.settings import Settings
from resnet_det.explain.store import DRAWN, Measured, Store, collect_numbers, conclude
from resnet_det.visualization.page import render_page

PAGE_NAME = "explained.html"
VARIANTS = {"": "", "weights": "with the weights of nets from elsewhere"}
_MARK = '<meta name="generator" content="explain_resnet">'


def write_page(output: Path) -> Path:
    """Write explained.html of all that has been measured in ``output``.

    Raises:
        InputError: nothing has been, files in it are damaged, or another explained.html is there.
    """
    path = check_page(output)
    store = Store(output)
    measured = {
        (name, variant): found
        for name in EXPERIMENTS
        for variant in VARIANTS
        if (found := store.find_all(name, variant))
    }
    if not measured:
        raise InputError(f"--output {output}: nothing has been measured there; run an experiment first")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(render(measured), encoding="utf-8")
    temporary.replace(path)
    return path


def check_page(output: Path) -> Path:
    """Where the page goes.

    Raises:
        InputError: another file of its name is there.
    """
    path = output / PAGE_NAME
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"--output: {path} is not of this tool, and stays as it is; take it away")
    return path


def render(measured: Mapping[tuple[str, str], Sequence[Measured]]) -> str:
    """The page as HTML.

    Args:
        measured: of each experiment and variant, all seeds.
    """
    parts = [
        {"experiment": experiment, "runs": runs, "outcome": runs[0]["verdict"].outcome if runs else ""}
        for experiment in EXPERIMENTS.values()
        if (runs := [_run(experiment, *item) for item in measured.items() if item[0][0] == experiment.name]) or True
    ]
    return render_page("resnet_det.explain", "explained.html", title="ResNets explained by experiment", parts=parts)


def _run(experiment: Experiment, key: tuple[str, str], seeds: Sequence[Measured]) -> dict[str, Any]:
    first, numbers = seeds[0], collect_numbers(seeds)
    machines = dict.fromkeys(describe(one.machine) for one in seeds)
    told = ", ".join(str(one.seed) for one in seeds)
    facts = {"seeds": f"{told}, of images alone: the nets are the same ones" if key[1] else told}
    facts["images"] = first.data
    facts["sizes"] = ", ".join(
        f"{name.replace('_', ' ')} {tell(value)}" for name, value in first.settings.items() if name != DRAWN
    )
    if not key[1]:
        facts["training"] = Recipe.of(Settings.from_json(first.settings)).words
    facts["machine"] = "; ".join(machines)
    facts["time"] = f"{tell_time(sum(one.seconds for one in seeds))} in all, with the training of the nets"
    return {
        "variant": VARIANTS[key[1]],
        "verdict": conclude(experiment, seeds),
        "shown": experiment.show(numbers) if numbers else Shown(),
        "repeats": "draws of images, of which each goes through the same nets" if key[1] else "seeds",
        "commands": list(dict.fromkeys(one.command for one in seeds)),
        "facts": facts,
    }


def describe(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def tell(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def tell_time(seconds: float) -> str:
    """Such as "48 s", "12 min" or "1 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
