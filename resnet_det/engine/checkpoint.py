"""Checkpoints that survive being killed: written whole or not at all, and the one before is used if one is damaged."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

_LAST = "last_checkpoint"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpoints, under its names, in its format."""

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
        content |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        self._write(f"{name}.pth", content)
        self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Write the weights of ``model`` alone, to evaluate or start from; not to resume."""
        if self.save_to_disk:
            self._write(f"{name}.pth", {"model": model.state_dict(), **kwargs})

    def _write(self, filename: str, content: dict[str, Any]) -> None:
        path = Path(self.save_dir, filename)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            raise InputError(
                f"{path}: the checkpoint cannot be written ({error}). Checkpoints written before are still there: make "
                "room, and go on with --resume"
            ) from None

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        temporary = Path(self.save_dir, f"{_LAST}.tmp")
        temporary.write_text(last_filename_basename)
        temporary.replace(Path(self.save_dir, _LAST))

    def resume_last(self) -> int | None:
        """Load the newest checkpoint that can be read.

        Returns:
            Its iteration; None if there is no checkpoint.

        Raises:
            InputError: it was made with another version of Detectron2, whose state differs, or none can be read.
        """
        candidates = self.find_checkpoints()
        for path in candidates:
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged file can fail in any way
                logger.warning("%s cannot be read (%s): going back to the one before", path, str(error).split("\n")[0])
                continue
            self._restore(path, content)
            return content["iteration"]
        if candidates:
            raise InputError(f"{self.save_dir}: none of {len(candidates)} checkpoints can be read")
        return None

    def find_checkpoints(self) -> list[Path]:
        """Checkpoints to resume from, newest first."""
        folder = Path(self.save_dir)
        numbered = sorted(
            (path for path in folder.glob("model_*.pth") if re.fullmatch(r"model_\d+", path.stem)), reverse=True
        )
        last = folder / _LAST
        first = folder / last.read_text().strip() if last.is_file() else None
        if first is None or not first.is_file():
            return numbered
        return [first, *(path for path in numbered if path != first)]

    def _restore(self, path: Path, content: dict[str, Any]) -> None:
        version = content.get("detectron2")
        if version != detectron2.__version__:
            raise InputError(
                f"{path}: made with Detectron2 {version or 'of an unknown version'}, here is {detectron2.__version__}, "
                "whose training state differs. Resume with that version, or start anew from its weights: "
                f"MODEL.WEIGHTS {path}, without --resume"
            )
        self.model.load_state_dict(content["model"])
        for key, value in self.checkpointables.items():
            value.load_state_dict(content[key])
        logger.info("Resumed from %s", path)

    def keep_last(self, number: int) -> None:
        """Remove all numbered checkpoints but the newest ``number``; 0 keeps all."""
        if number and comm.is_main_process():
            folder = Path(self.save_dir)
            numbered = sorted(path for path in folder.glob("model_*.pth") if re.fullmatch(r"model_\d+", path.stem))
            for path in numbered[:-number]:
                path.unlink()
