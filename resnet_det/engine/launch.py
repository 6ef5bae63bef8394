"""Start training processes: under torchrun, or by Detectron2's own launcher."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from resnet_det.errors import InputError


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in every process of the job: torchrun's, if it started this one, else ``--num-gpus`` per
    machine.

    Without CUDA, ``--num-gpus`` is a number of CPU processes.

    Raises:
        InputError: there are fewer GPUs than asked for.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _run_under_torchrun(main, args)
    available = torch.cuda.device_count()
    if 0 < available < args.num_gpus:
        raise InputError(f"--num-gpus {args.num_gpus}: this machine has {available}")
    return detectron2_launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _run_under_torchrun(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        if torch.cuda.device_count() < local_size:
            raise InputError(
                f"torchrun --nproc-per-node {local_size}: this machine has {torch.cuda.device_count()} GPUs"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        _create_local_process_group(local_size)
        return main(args)
    finally:
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
