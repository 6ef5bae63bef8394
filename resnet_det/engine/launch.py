"""Start training processes: under torchrun, or by Detectron2's own launcher."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from resnet_det.errors import InputError
from resnet_det.processes import end_with_parent


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in every process of the job: torchrun's, if it started this one, else ``--num-gpus`` per
    machine.

    Without CUDA, ``--num-gpus`` is a number of CPU processes.

    Raises:
        InputError: there are fewer GPUs than asked for, or ``main`` raised one.
        SystemExit: a process of ``--num-gpus`` failed, and has said why.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _run_under_torchrun(main, args)
    available = torch.cuda.device_count()
    if 0 < available < args.num_gpus:
        raise InputError(f"--num-gpus {args.num_gpus}: this machine has {available}")
    if args.num_gpus * args.num_machines == 1:
        return main(args)
    try:
        return detectron2_launch(
            _exit_with_message,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except ProcessExitedException as error:
        raise SystemExit(error.exit_code) from None


def _exit_with_message(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """In a started process: an InputError is told by its message, not by a stack of calls in each process."""
    end_with_parent(signal.SIGTERM)
    try:
        main(args)
    except InputError as error:
        print(f"process {comm.get_rank()}: {error}", file=sys.stderr)
        sys.exit(2)
    _leave_process_group()


def _run_under_torchrun(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    end_with_parent(signal.SIGTERM)
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        if torch.cuda.device_count() < local_size:
            raise InputError(
                f"torchrun --nproc-per-node {local_size}: this machine has {torch.cuda.device_count()} GPUs"
            )
        torch.cuda.set_device(local_rank)
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if attempt:
        args.resume = True  # --max-restarts: go on where the processes were lost
    store, rank, world_size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt_{attempt}", store)  # else gloo takes addresses of processes that are gone
    dist.init_process_group("nccl" if has_gpu else "gloo", store=store, rank=rank, world_size=world_size)
    _create_local_process_group(local_size)
    result = main(args)
    _leave_process_group()
    return result


def _leave_process_group() -> None:
    """Together, and before Python ends: threads of torch that are there at the end can abort the process.

    Not after an error: it would wait for processes that wait for this one.
    """
    comm.synchronize()
    dist.destroy_process_group()


def _create_local_process_group(local_size: int) -> None:
    """Tell Detectron2 which processes share a machine."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(local_size)
        return
    machine_rank = comm.get_rank() // local_size  # Detectron2 v0.5 does this in its launcher alone
    for machine in range(comm.get_world_size() // local_size):
        group = dist.new_group(list(range(machine * local_size, (machine + 1) * local_size)))
        if machine == machine_rank:
            comm._LOCAL_PROCESS_GROUP = group
