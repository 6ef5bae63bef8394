"""Whose files are in OUTPUT_DIR: a run never continues, deletes or reports those of another."""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError

_RECORD = "run.json"
_NUMBERED = re.compile(r"model_\d+\.pth")
# What shows that a run has been here.
_SIGNS = ("last_checkpoint", "metrics.json", "model_final.pth")
# Everything that a run writes to OUTPUT_DIR, and below its folders of predictions.
_WRITTEN = re.compile(
    r"(last_checkpoint|run\.json)(\.tmp)?|model_(\d+|final|final_ema|best)\.(pth|tmp)|metrics\.json|config\.yaml"
    r"|classifier(\.tmp)?\.safetensors|log\.txt(\.rank\d+)?|events\.out\.tfevents\..+|(results|evaluation|skipped_images)\.json"
    r"|report\.html|failed_batch_rank\d+_iter\d+\.pth|profile_\d+\.json"
)
_PREDICTION_FOLDERS = ("inference", "inference_TTA")
_PREDICTIONS = re.compile(
    r"(coco|lvis)_instances_results\.json|instances_predictions\.pth|box_proposals\.pkl|sem_seg_predictions\.json"
    r"|sem_seg_evaluation\.pth|predictions\.json|(panoptic_)?\d+\.png|evaluation\.json|report\.html"
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


def clear_run(folder: str | Path, *, keep: Sequence[str | Path] = ()) -> None:
    """Delete what a run has written to ``folder``, and nothing else; where there was no run, nothing.

    Args:
        keep: files that the new run reads; names of other things are passed over.

    Raises:
        InputError: one of ``keep`` is among what would be deleted. Nothing is deleted then.
    """
    folder = Path(folder)
    if not holds_run(folder) and not read_record(folder):
        return
    doomed = [path for path in folder.iterdir() if path.is_file() and _WRITTEN.fullmatch(path.name)]
    folders = [folder / name for name in _PREDICTION_FOLDERS]
    doomed += [path for one in folders for path in one.rglob("*") if _PREDICTIONS.fullmatch(path.name)]
    for kept in map(str, keep):
        if os.path.isfile(kept) and any(path.samefile(kept) for path in doomed):
            raise InputError(f"{kept} is among the files that --overwrite deletes: move it, or take a copy")
    for path in doomed:
        path.unlink()
    for one in folders:
        for path in (*sorted(one.rglob("*/"), reverse=True), one):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def check_evaluation(folder: str | Path, weights: str) -> None:
    """
    Raises:
        InputError: there is a run in ``folder``, and ``weights``, which are to be evaluated, are not of it.
    """
    folder = Path(folder)
    if weights and holds_run(folder) and Path(weights).resolve().parent != folder.resolve():
        raise InputError(
            f"OUTPUT_DIR {folder} holds a run, whose results and predictions those of MODEL.WEIGHTS {weights} would "
            "replace: set another OUTPUT_DIR"
        )


def note_evaluated(folder: str | Path, weights: Path) -> None:
    """Note which weights of the run in ``folder`` its results are about."""
    record = read_record(folder)
    if record:
        write_record(folder, {**record, "evaluated": weights.name})


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
