"""Checkpoints that survive being killed: written whole or not at all, and the one before is used if one is damaged."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from resnet_det.engine.agreement import check_everywhere, decide_once
from resnet_det.engine.run_folder import continue_run, find_numbered, read_record, start_run
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"
_FORMAT = 2  # of the training state


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpoints, under its names, in its format; each knows the id of its run.

    Attributes:
        run_id: of the run that this one writes for; "" until it begins or goes on.
        resumed_from: the name of the checkpoint that was loaded.
        facts: what each file says besides, by key.
    """

    run_id = resumed_from = ""
    facts: Mapping[str, str] = MappingProxyType({})

    def begin(self) -> None:
        """Start a new run in this folder. In all processes together."""
        self.run_id = decide_once(lambda: start_run(self.save_dir)) if self.save_dir else ""

    def check_space(self, size_mib: float) -> None:
        """
        Raises:
            InputError: the disk has no room for a checkpoint of that size, in MiB.
        """
        free_mib = shutil.disk_usage(self.save_dir).free / 2**20
        if free_mib < size_mib:
            raise InputError(
                f"OUTPUT_DIR {self.save_dir}: {free_mib:.0f} MiB are free there, and a checkpoint of this run takes "
                f"{size_mib:.0f}: make room, or set another OUTPUT_DIR"
            )

    def save(self, name: str, **kwargs: Any) -> None:
        """Write model and training state to ``name``.pth, and note it as the last one.

        Raises:
            InputError: the file cannot be written. Those that were there before are as they were.
        """
        if not self.save_to_disk:
            return
        content = {"model": self.model.state_dict(), "detectron2": detectron2.__version__, **kwargs}
        content |= {"format": _FORMAT, "run": self.run_id, **self.facts}
        content |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        self._write(f"{name}.pth", content)
        self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Write the weights of ``model`` alone, to evaluate or start from; not to resume."""
        if self.save_to_disk:
            self._write(f"{name}.pth", {"model": model.state_dict(), "run": self.run_id, **self.facts, **kwargs})

    def _write(self, filename: str, content: dict[str, Any]) -> None:
        path = Path(self.save_dir, filename)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            # torch reports a full disk as a RuntimeError of its writer; any other has nothing to do with the file.
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise
            raise InputError(
                f"{path}: the checkpoint cannot be written ({error}). Checkpoints written before are still there: make "
                "room, and go on with --resume"
            ) from None

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        temporary = Path(self.save_dir, f"{_LAST}.tmp")
        temporary.write_text(last_filename_basename)
        temporary.replace(Path(self.save_dir, _LAST))

    def resume_last(self) -> int | None:
        """Load the newest checkpoint of the run in this folder that can be read. In all processes together.

        Which one that is, the first process says.

        Returns:
            Its iteration; None if there is no checkpoint.

        Raises:
            InputError: it was made with another version of Detectron2, whose state differs, it is of another model,
                none can be read, or not every process can read it.
        """
        path = decide_once(lambda: find_checkpoint(self.save_dir))
        if path is None:
            return None
        content, problem = None, None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            problem = (
                f"{path} is readable by the first process but not here ({_first_line(error)}): OUTPUT_DIR has to be "
                "where all machines see it"
            )
        check_everywhere(problem)
        self._restore(path, content)
        if comm.is_main_process():
            continue_run(self.save_dir, self.run_id)
        return content["iteration"]

    def _restore(self, path: Path, content: dict[str, Any]) -> None:
        version = content.get("detectron2")
        if version != detectron2.__version__ or content.get("format") != _FORMAT:
            made_with = f"Detectron2 {version or 'of an unknown version'}, here is {detectron2.__version__}"
            if version == detectron2.__version__:
                made_with = "another version of resnet_det"
            raise InputError(
                f"{path}: made with {made_with}, whose training state differs. Resume with that version, or start anew "
                f"from its weights: MODEL.WEIGHTS {path}, without --resume"
            )
        _check_shapes(path, self.model.state_dict(), content["model"])
        self.run_id = content["run"] or read_record(self.save_dir).get("id", "")
        self.model.load_state_dict(content["model"])
        for key, value in self.checkpointables.items():
            value.load_state_dict(content[key])
        self.resumed_from = path.name
        logger.info("Resumed from %s", path)

    def keep_last(self, number: int) -> None:
        """Remove all numbered checkpoints of this run but the newest ``number``; 0 keeps all."""
        if not number or not comm.is_main_process():
            return
        own = [path for path in find_numbered(Path(self.save_dir)) if read_run_id(path) == self.run_id]
        for path in own[:-number]:
            path.unlink()


def find_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint in ``folder`` that can be read and belongs to its run; None if there is none.

    Raises:
        InputError: none of them can be read.
    """
    candidates = _find_candidates(Path(folder))
    run_id, damaged = read_record(folder).get("id"), 0
    for path in candidates:
        try:
            content = _peek(path)
        except Exception as error:  # a damaged file can fail in any way
            logger.warning("%s cannot be read (%s): going back to the one before", path, _first_line(error))
            damaged += 1
            continue
        if run_id and content.get("run", run_id) != run_id:
            logger.warning("%s is of another run: passed over", path)
            continue
        return path
    if damaged:
        raise InputError(f"{folder}: none of {damaged} checkpoints can be read")
    return None


def read_run_id(path: Path) -> str | None:
    """The id of the run that wrote a checkpoint; None if it cannot be read."""
    try:
        return _peek(path).get("run")
    except Exception:
        return None


def load_last_weights(folder: str | Path, model: nn.Module, *, averaged: bool) -> Path | None:
    """Load into ``model`` what the run in ``folder`` would be evaluated by now.

    That is the newest checkpoint, or (``averaged``) its moving average; after early stopping, model_best.pth.

    Returns:
        The checkpoint; None if there is none.

    Raises:
        InputError: it is of another model, or has no average.
    """
    path = decide_once(lambda: find_checkpoint(folder))
    if path is None:
        return None
    best = path.with_name("model_best.pth")
    if path.name == "model_final.pth" and read_record(folder).get("evaluated") == best.name and best.is_file():
        path, averaged = best, False
    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = content["model"]
    if averaged:
        try:
            weights = content["trainer"]["_trainer"]["ema"]["module"]
        except KeyError:
            raise InputError(
                f"{path} has no moving average: RESNET_DET.TRAIN.EMA_DECAY 0 evaluates its weights"
            ) from None
    _check_shapes(path, model.state_dict(), weights)
    model.load_state_dict(weights)
    return path


def _find_candidates(folder: Path) -> list[Path]:
    """Checkpoints to resume from, newest first."""
    numbered = find_numbered(folder)[::-1]
    last = folder / _LAST
    first = folder / last.read_text().strip() if last.is_file() else None
    if first is None or not first.is_file():
        return numbered
    return [first, *(path for path in numbered if path != first)]


def _peek(path: Path) -> dict[str, Any]:
    """What is in a checkpoint, without reading its tensors."""
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)


def _check_shapes(path: Path, mine: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    plain = {name: tensor.shape for name, tensor in mine.items()}
    theirs = {name: tensor.shape for name, tensor in saved.items()}
    wrong = [name for name in plain.keys() | theirs.keys() if plain.get(name) != theirs.get(name)]
    if wrong:
        name = min(wrong)
        shapes = [tuple(shapes[name]) if name in shapes else "missing" for shapes in (theirs, plain)]
        raise InputError(
            f"{path} is of another model: {len(wrong)} tensors differ, such as {name}: {shapes[0]} there, {shapes[1]}"
            " here. A run cannot go on with other classes or another depth: train from it in another OUTPUT_DIR, by "
            f"MODEL.WEIGHTS {path}, without --resume"
        )


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
