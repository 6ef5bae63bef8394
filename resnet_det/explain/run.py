"""From the command line's arguments to results and the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_det.benchmark import describe_machine
from resnet_det.errors import InputError
from resnet_det.evaluation.files import hash_file
from resnet_det.explain.data import Data
from resnet_det.explain.detectors import read_detectors
from resnet_det.explain.experiment import Experiment
from resnet_det.explain.lab import DivergedError, Lab
from resnet_det.explain.page import check_page
from resnet_det.explain.published import NUM_IMAGES
from resnet_det.explain.settings import Settings
from resnet_det.explain.store import DRAWN, Measured, Store, check_settings, conclude
from resnet_det.explain.verdicts import Verdict
from resnet_det.outputs import make_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be done for each experiment.

    Attributes:
        seeds: how many, from 0 on.
        weights: of nets from elsewhere; empty trains nets.
        detectors: tradeoff.json of tools/compare_depths.py, for the experiment that looks at it.
        overwrite: measure anew what has been measured. Trained nets stay.
        command: that did it, to be repeated by others.
    """

    output: Path
    seeds: int = 2
    device: str = "cpu"
    weights: Sequence[Path] = ()
    detectors: Path | None = None
    overwrite: bool = False
    command: str = ""


def run_experiment(experiment: Experiment, settings: Settings, data: Data, order: Order) -> Verdict:
    """Measure what has not been measured, seed by seed; :func:`~resnet_det.explain.page.write_page` shows it. Where a
    training diverges, that is the result.

    Raises:
        InputError: something in the order, the data or the output folder does not fit.
        TrainingStoppedError: a signal has ended a training.
    """
    if order.seeds < 1:
        raise InputError(f"--seeds {order.seeds}: 1 or more")
    experiment.check_depths(settings.depths)
    if order.weights and not experiment.takes_weights:
        raise InputError(f"--weights: {experiment.name} trains its nets; leave the flag out")
    make_folder(order.output)
    check_page(order.output)
    store, variant = Store(order.output), "weights" if order.weights else ""
    known = settings.as_json()
    if order.weights:
        known["weights"] = [f"{path.name} (sha256 {hash_file(path)[:12]})" for path in order.weights]
        known = {key: known[key] for key in ("probes", "weights")}
    counts = data.count("train"), data.count("test"), len(data.classes)
    # Of nets from elsewhere, some test images tell the kind; the others need not be read.
    shared = {"test": NUM_IMAGES} if order.weights else settings.counts
    used = ", ".join(f"{data.fingerprint(split, count):.8}" for split, count in shared.items())
    known["taken from"] = "{} training and {} test images of {} classes ({})".format(*counts, used)
    if order.detectors and experiment.name == "returns":
        read_detectors(order.detectors)
        known["detectors"] = f"{order.detectors.name} (sha256 {hash_file(order.detectors)[:12]})"
    stored = {one.seed: one for one in store.read_all(experiment.name, variant)}
    anew = range(order.seeds if order.overwrite else 0)
    remedy = f"--overwrite --seeds {max(order.seeds, 1 + max(stored, default=0))} measures all of them anew"
    for seed, measured in stored.items():
        if seed not in anew:
            settings_of_seed = known | _draw(experiment, settings, data, seed)
            check_settings(measured, settings_of_seed, "this command", remedy)
    for seed in range(order.seeds):
        if seed in anew or seed not in stored:
            drawn = _draw(experiment, settings, data, seed)
            store.write(_measure(experiment, settings, data, order, seed, known | drawn))
        else:
            logger.info("%s, seed %d: is there", experiment.name, seed)
    return conclude(experiment, store.find_all(experiment.name, variant))


def _draw(experiment: Experiment, settings: Settings, data: Data, seed: int) -> dict[str, str]:
    """What tells the images apart that a seed draws."""
    found = [f"{split} {data.fingerprint(split, settings.probes, seed):.8}" for split in experiment.draws]
    return {DRAWN: ", ".join(found)} if found else {}


def _measure(experiment: Experiment, settings: Settings, data: Data, order: Order, seed: int, known: dict) -> Measured:
    logger.info("%s, seed %d", experiment.name, seed)
    lab = Lab(data, order.output, device=order.device, weights=order.weights, detectors=order.detectors)
    start = time.perf_counter()
    numbers, failure = {}, ""
    try:
        numbers = experiment.measure(lab, settings, seed)
    except DivergedError as error:
        failure = str(error)
        logger.warning("%s, seed %d: %s", experiment.name, seed, failure)
    spent = time.perf_counter() - start
    return Measured(
        experiment.name,
        "weights" if order.weights else "",
        seed,
        known,
        data.root.name,
        numbers,
        order.command,
        describe_machine(order.device),
        spent - lab.trained_now_seconds + lab.training_seconds,
        failure,
    )
