"""Whose files are in OUTPUT_DIR: a run never continues, deletes or reports those of another."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import uuid
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError

_RECORD = "run.json"
_NUMBERED = re.compile(r"model_\d+\.pth")
# What shows that a run has been here.
_SIGNS = ("last_checkpoint", "metrics.json", "model_final.pth")
# Everything that a run writes, by pattern.
_WRITTEN = (
    *_SIGNS,
    _RECORD,
    "model_[0-9]*.pth",
    "model_final_ema.pth",
    "model_best.pth",
    "last_checkpoint.tmp",
    "model_*.tmp",
    f"{_RECORD}.tmp",
    "config.yaml",
    "log.txt*",
    "events.out.tfevents.*",
    "results.json",
    "evaluation.json",
    "report.html",
    "skipped_images.json",
    "failed_batch_rank*_iter*.pth",
    "profile_*",
    "inference",
    "inference_TTA",
)


def is_restart() -> bool:
    """Whether torchrun (--max-restarts) or SLURM (requeue) has started this process again."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def find_jobs() -> list[str]:
    """What started this process, as its restarts will say it again: torchrun's agent, a SLURM job."""
    jobs = []
    if "TORCHELASTIC_RUN_ID" in os.environ:
        agent = os.getppid()
        jobs.append(f"torchrun {socket.gethostname()} {agent} {_start_time(agent)}")
    if "SLURM_JOB_ID" in os.environ:
        jobs.append(f"slurm {os.environ.get('SLURM_CLUSTER_NAME', '')} {os.environ['SLURM_JOB_ID']}")
    return jobs


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # not Linux
        return ""


def choose_start(folder: str | Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether to go on with the run in ``folder``. Nothing is written or deleted.

    Args:
        resume, overwrite: what the user asks for. A restart of the job that made the run goes on by itself.

    Raises:
        InputError: there is a run, and the user has not said what is to become of it.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise InputError("--resume goes on with the run in OUTPUT_DIR, --overwrite deletes it: give one of them")
    if not holds_run(folder):
        return resume
    if resume or (is_restart() and set(find_jobs()) & set(read_record(folder).get("jobs", ()))):
        return True
    if overwrite:
        return False
    raise InputError(
        f"OUTPUT_DIR {folder} holds a run: --resume goes on with it, another OUTPUT_DIR keeps it, and --overwrite "
        "deletes it and starts anew"
    )


def holds_run(folder: Path) -> bool:
    """Whether a run has left anything in ``folder``: a number or a checkpoint; not one that failed at its start."""
    files = [folder / name for name in _SIGNS]
    return any(path.is_file() and path.stat().st_size > 0 for path in files) or bool(find_numbered(folder))


def clear_run(folder: str | Path, *, keep: str = "") -> None:
    """Delete what a run has written to ``folder``, and nothing else.

    Raises:
        InputError: ``keep``, a file, is among it. Nothing is deleted then.
    """
    folder = Path(folder)
    doomed = [path for pattern in _WRITTEN for path in folder.glob(pattern)]
    if keep and any(path.exists() and path.samefile(keep) for path in doomed if os.path.exists(keep)):
        raise InputError(f"MODEL.WEIGHTS {keep} is among the files that --overwrite deletes: move it, or take a copy")
    for path in dict.fromkeys(doomed):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def start_run(folder: str | Path) -> str:
    """Note in ``folder`` that a new run begins there. Returns its id."""
    run_id = uuid.uuid4().hex[:12]
    write_record(folder, {"id": run_id, "jobs": find_jobs()})
    return run_id


def continue_run(folder: str | Path, run_id: str) -> None:
    """Note in ``folder`` that the run of that id goes on there, now in this job too."""
    record = read_record(folder)
    known = record.get("jobs", []) if record.get("id") == run_id else []
    write_record(folder, {**record, "id": run_id, "jobs": list(dict.fromkeys([*known, *find_jobs()]))})


def read_record(folder: str | Path) -> dict[str, Any]:
    """What is noted of the run in ``folder``: "id", "jobs", and "evaluated", the weights of its results."""
    try:
        record = json.loads(Path(folder, _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: str | Path, record: dict[str, Any]) -> None:
    temporary = Path(folder, f"{_RECORD}.tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(Path(folder, _RECORD))


def find_numbered(folder: Path) -> list[Path]:
    """Checkpoints model_0001234.pth, the newest last."""
    found = [path for path in folder.glob("model_*.pth") if _NUMBERED.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("model_")))
