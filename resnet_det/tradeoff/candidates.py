"""Detectors to choose from: runs that have ended, or configs alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

from resnet_det.analysis import calibrate_norms_
from resnet_det.config import backbone_outputs, check_cfg, flatten_cfg, merge_cfg, read_spec
from resnet_det.data import build_mapper, prepare_dataset, register_cfg_datasets
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.engine.loaders import load_test_dicts
from resnet_det.engine.run_folder import read_record
from resnet_det.errors import InputError
from resnet_det.evaluation import inference_folder
from resnet_det.evaluation.build import find_max_detections
from resnet_det.evaluation.files import hash_file
from resnet_det.modeling import speed_up_on_cpus_
from resnet_det.weights.describe import describe_spec

T, R = TypeVar("T"), TypeVar("R")
# Keys in which candidates may differ without a word: what is compared, and where it lies.
_FREE_KEYS = ("MODEL.RESNETS.", "MODEL.RESNET_DET.", "MODEL.WEIGHTS", "MODEL.DEVICE", "OUTPUT_DIR", "DATASETS.TEST")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A detector to choose from.

    Attributes:
        name: different for each of those that were read together.
        source: the folder of the run, or the config file.
        weights: the trained ones; None of a config alone.
        results: what it has found on the test set, in COCO's format; None of a config alone.
    """

    name: str
    source: Path
    cfg: CfgNode
    weights: Path | None = None
    results: Path | None = None


@dataclass(frozen=True)
class TestSet:
    """The images on which all runs were evaluated, and how.

    Attributes:
        max_detections: of an image and class that count: as many as any of the runs gives; None: COCO's limit.
        crowd_as_objects, classes: by what rules all of them read the annotations.
    """

    name: str
    annotations: Path
    images: Path
    kpt_oks_sigmas: tuple[float, ...] = ()
    max_detections: int | None = None
    crowd_as_objects: bool = False
    classes: tuple[str, ...] = ()


def read_runs(folders: Sequence[Path], *, device: str, opts: Sequence[str] = ()) -> tuple[list[Candidate], TestSet]:
    """Read what runs of tools/train_net.py have left in their OUTPUT_DIR.

    Args:
        device: where the models go.
        opts: KEY VALUE pairs, such as where the data are now.

    Raises:
        InputError: a folder lacks something, or the runs were not evaluated on the same images; of several folders all
            are listed.
    """
    _check_number(folders, "run", "folders of runs")
    cfgs: list[CfgNode] = _for_all(folders, lambda folder: _read_run_cfg(folder, device, opts))
    test_set, own_names = _find_common_test_set(folders, cfgs)
    files = _for_all(
        list(zip(folders, cfgs, own_names, strict=True)),
        lambda one: (find_weights(one[0], one[1]), find_results(one[0], one[1], one[2])),
    )
    register_cfg_datasets(cfgs[0])
    prepare_dataset(test_set.name)
    names = name_candidates(cfgs, [folder.name for folder in folders], [str(folder) for folder in folders])
    candidates = []
    for name, folder, cfg, (weights, results) in zip(names, folders, cfgs, files, strict=True):
        cfg.MODEL.WEIGHTS = str(weights)
        cfg.freeze()
        candidates.append(Candidate(name, folder, cfg, weights, results))
    return candidates, test_set


def read_configs(
    files: Sequence[str], depths: Sequence[int] = (), *, device: str, opts: Sequence[str] = ()
) -> list[Candidate]:
    """The detectors that config files describe, each at each of ``depths`` if there are any.

    Raises:
        InputError: a file cannot be used, or fewer than two detectors are described.
    """
    pairs = [(file, depth) for file in files for depth in depths or (None,)]
    _check_number(pairs, "config", "config files, or --depths,")
    cfgs = _for_all(pairs, lambda pair: _read_config(*pair, device, opts))
    for cfg in cfgs:
        cfg.freeze()
    stems = [Path(file).stem + (f", depth {depth}" if depth else "") for file, depth in pairs]
    paths = [file + (f", depth {depth}" if depth else "") for file, depth in pairs]
    names = name_candidates(cfgs, stems, paths)
    return [Candidate(name, Path(file), cfg) for name, (file, _), cfg in zip(names, pairs, cfgs, strict=True)]


def name_candidates(cfgs: Sequence[CfgNode], *fallbacks: Sequence[str]) -> list[str]:
    """Names that are all different: those of the ResNets ("R-50"), or the first of ``fallbacks`` that are."""
    nets = [describe_spec(read_spec(cfg)) if backbone_outputs(cfg) else "" for cfg in cfgs]
    nets = [name.replace("Wide ResNet-", "WRN-").replace("ResNeXt-", "X-").replace("ResNet-", "R-") for name in nets]
    for names in (nets, *fallbacks):
        if len(set(names)) == len(names) and all(names):
            return list(names)
    return [f"{name} ({number})" for number, name in enumerate(fallbacks[-1], start=1)]


def load_candidate(candidate: Candidate) -> nn.Module:
    """The model, in evaluation mode: with its trained weights, or with random ones (seed 0) of a config alone.

    Raises:
        InputError: the weights are not of this config.
    """
    torch.manual_seed(0)
    model = build_model(candidate.cfg).eval()
    if candidate.weights is not None:
        load_trained_weights(candidate.cfg, model)
    speed_up_on_cpus_(model)
    return model


def load_test_inputs(candidate: Candidate, test_set: TestSet, count: int) -> list[list[dict[str, Any]]]:
    """Batches of one image each, as the candidate's model takes them: ``count`` images from all over the test set."""
    dicts = load_test_dicts(candidate.cfg, test_set.name)
    mapper = build_mapper(candidate.cfg, False)
    count = min(count, len(dicts))
    return [[mapper(dicts[number * len(dicts) // count])] for number in range(count)]


def make_random_inputs(candidate: Candidate, model: nn.Module, size: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """One batch of one random image of ``size`` (H, W), on which the norms of ``model`` are calibrated."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(len(candidate.cfg.MODEL.PIXEL_MEAN), *size, generator=generator) * 255
    calibrate_norms_(model, image)
    return [[{"image": image, "height": size[0], "width": size[1]}]]


def find_differences(candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """Keys of the configs that are not the same in all, with each one's value, but for where things lie.

    What belongs to the ResNet itself is not among them.
    """
    flat = [{key: str(value) for key, value in flatten_cfg(candidate.cfg)} for candidate in candidates]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key, "") for one in flat] for key in keys if not key.startswith(_FREE_KEYS)}
    return {key: of_all for key, of_all in values.items() if len(set(of_all)) > 1}


def find_weights(folder: Path, cfg: CfgNode) -> Path:
    """The weights that a run has ended with and evaluated.

    Raises:
        InputError: it has left none.
    """
    name = "model_final_ema.pth" if cfg.RESNET_DET.TRAIN.EMA_DECAY else "model_final.pth"
    name = read_record(folder).get("evaluated", name)  # model_best.pth after early stopping
    path = folder / name
    if path.is_file():
        return path
    if (folder / "metrics.json").is_file() or not Path(cfg.MODEL.WEIGHTS).is_file():
        raise InputError(
            f"{folder}: no {name}; a run that has ended has one (--resume goes on with one that has not). For costs "
            f"without weights: --config-file {folder / 'config.yaml'}"
        )
    return Path(cfg.MODEL.WEIGHTS)  # of --eval-only


def find_results(folder: Path, cfg: CfgNode, dataset: str) -> Path:
    """What a run has found on ``dataset``.

    Raises:
        InputError: it was not evaluated on it, or on some of its images alone.
    """
    path = inference_folder(cfg, dataset) / "coco_instances_results.json"
    again = f"tools/train_net.py --config-file {folder}/config.yaml --eval-only MODEL.WEIGHTS {folder}/model_final.pth"
    if not path.is_file():
        raise InputError(
            f"{folder}: no {path.relative_to(folder)}: it was not evaluated on {dataset}. To do so: {again}"
        )
    if cfg.RESNET_DET.TEST.MAX_IMAGES:
        raise InputError(
            f"{folder}: evaluated on {cfg.RESNET_DET.TEST.MAX_IMAGES} images alone (RESNET_DET.TEST.MAX_IMAGES). To "
            f"evaluate on all: {again} RESNET_DET.TEST.MAX_IMAGES 0"
        )
    if cfg.RESNET_DET.TEST.SLICE:
        raise InputError(
            f"{folder}: evaluated in slices (RESNET_DET.TEST.SLICE), and the time of whole images would stand beside "
            f"their AP. To evaluate whole images: {again} RESNET_DET.TEST.SLICE 0"
        )
    return path


def _read_run_cfg(folder: Path, device: str, opts: Sequence[str]) -> CfgNode:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the OUTPUT_DIR of a run would be right")
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"{folder}: no config.yaml; the OUTPUT_DIR of a run of tools/train_net.py would be right, or configs alone "
            "by --config-file"
        )
    cfg = _finish(merge_cfg(str(folder / "config.yaml"), list(opts)), str(folder / "config.yaml"), device)
    cfg.OUTPUT_DIR = str(folder)  # it may have been moved
    return cfg


def _read_config(file: str, depth: int | None, device: str, opts: Sequence[str]) -> CfgNode:
    depth_opts = [] if depth is None else ["MODEL.RESNETS.DEPTH", str(depth)]
    return _finish(merge_cfg(file, [*opts, *depth_opts]), file, device)


def _finish(cfg: CfgNode, where: str, device: str) -> CfgNode:
    cfg.MODEL.DEVICE = device
    problems = check_cfg(cfg)
    if problems:
        raise InputError.from_problems(where, problems)
    return cfg


def _find_common_test_set(folders: Sequence[Path], cfgs: Sequence[CfgNode]) -> tuple[TestSet, list[str]]:
    """The first set of DATASETS.TEST whose annotation file all runs share, and what it is called in each."""
    sets = _for_all(list(zip(folders, cfgs, strict=True)), lambda pair: _find_test_sets(*pair))
    for key, (name, file, images) in sets[0].items():
        if all(key in other for other in sets):
            limits = [limit for limit in map(find_max_detections, cfgs) if limit is not None]
            test_set = TestSet(
                name,
                Path(file),
                Path(images),
                kpt_oks_sigmas=tuple(_find_common_value(folders, cfgs, "TEST.KEYPOINT_OKS_SIGMAS")),
                max_detections=max(limits, default=None),
                crowd_as_objects=_find_common_value(folders, cfgs, "RESNET_DET.DATA.CROWD_AS_OBJECTS"),
                classes=tuple(_find_common_value(folders, cfgs, "RESNET_DET.DATA.CLASSES")),
            )
            return test_set, [other[key][0] for other in sets]
    said = [
        f"{folder} on {', '.join(f'{name} ({path})' for name, path, _ in own.values())}"
        for folder, own in zip(folders, sets, strict=True)
    ]
    raise InputError(
        f"the runs were evaluated on different data sets: {'; '.join(said)}. AP is compared on the same images: "
        "evaluate one on the other's (tools/train_net.py --eval-only --test-data ...)"
    )


def _find_common_value(folders: Sequence[Path], cfgs: Sequence[CfgNode], key: str) -> Any:
    """What a key that AP depends on is set to.

    Raises:
        InputError: not the same in all runs.
    """
    values = [reduce(getitem, key.split("."), cfg) for cfg in cfgs]
    if any(value != values[0] for value in values):
        said = ", ".join(f"{value} in {folder}" for folder, value in zip(folders, values, strict=True))
        raise InputError(
            f"{key} is not the same in all runs ({said}), so that their AP cannot be compared; --opts {key} VALUE "
            "evaluates all of them alike"
        )
    return values[0]


def _find_test_sets(folder: Path, cfg: CfgNode) -> dict[str, tuple[str, str, str]]:
    """Name, annotation file and image folder of each COCO set in DATASETS.TEST, by what is in the annotation file."""
    own = {entry[0]: entry for entry in cfg.RESNET_DET.DATA.COCO if isinstance(entry, list | tuple) and len(entry) == 3}
    sets = {}
    for name in cfg.DATASETS.TEST:
        entry = own.get(name)
        if entry is None and name in DatasetCatalog:
            metadata = MetadataCatalog.get(name)
            entry = (name, metadata.get("json_file"), metadata.get("image_root"))
        if entry is not None and entry[1] is not None:
            path = Path(entry[1])
            sets[hash_file(path) if path.is_file() else os.path.realpath(path)] = tuple(entry)
    if not sets:
        raise InputError(f"{folder}: DATASETS.TEST {tuple(cfg.DATASETS.TEST)} has no known data set in COCO format")
    return sets


def _check_number(given: Sequence[Any], what: str, wanted: str) -> None:
    if len(given) < 2:
        raise InputError(f"{len(given)} {what} given; two or more {wanted} would make a comparison")


def _for_all(items: Sequence[T], read: Callable[[T], R]) -> list[R]:
    """``read(item)`` of each; what is wrong with any of them is told in one error."""
    done, problems = [], []
    for item in items:
        try:
            done.append(read(item))
        except InputError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError.from_problems(f"{len(problems)} of {len(items)} cannot be compared", problems)
    return done
