"""Start training processes: under torchrun, or by Detectron2's own launcher."""

from __future__ import annotations

import argparse
import datetime
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from detectron2.engine import default_argument_parser
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from resnet_det.config import merge_cfg
from resnet_det.engine.hooks.signals import Interrupted
from resnet_det.errors import InputError
from resnet_det.processes import end_with_parent

# While the first process evaluates masks, or writes a report, the others wait for it.
TIMEOUT = datetime.timedelta(hours=3)


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
    on_gpu = uses_gpu(args)
    available = torch.cuda.device_count() if on_gpu else 0
    if 0 < available < args.num_gpus:
        raise InputError(f"--num-gpus {args.num_gpus}: this machine has {available}")
    if args.num_gpus * args.num_machines == 1:
        return main(args)
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the processes to come: else they would talk by NCCL
    try:
        return detectron2_launch(
            _exit_with_message,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=choose_url(args),
            args=(main, args),
            timeout=TIMEOUT,
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
    except Interrupted:
        _leave_alone()
    _leave_process_group()


def uses_gpu(args: argparse.Namespace) -> bool:
    """Whether there is CUDA, and neither the command line nor a yaml file says that the CPU is to be used.

    Raises:
        InputError: the yaml file cannot be used.
    """
    if not torch.cuda.is_available():
        return False
    opts = [str(opt) for opt in getattr(args, "opts", None) or []]
    config_file = str(getattr(args, "config_file", None) or "")
    if config_file.endswith((".yaml", ".yml")):
        return merge_cfg(config_file, opts).MODEL.DEVICE != "cpu"
    return ("MODEL.DEVICE", "cpu") not in itertools.pairwise(opts) and "train.device=cpu" not in opts


def choose_url(args: argparse.Namespace) -> str:
    """Where the processes meet: on one machine any free port, unless one was asked for.

    Detectron2's default is one port for each user, so that a second job of the same user finds it taken.
    """
    default = default_argument_parser().get_default("dist_url")
    return "auto" if args.num_machines == 1 and args.dist_url == default else args.dist_url


def _run_under_torchrun(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    end_with_parent(signal.SIGTERM)
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = uses_gpu(args)
    if has_gpu:
        take_gpu(local_rank, local_size)
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    store, rank, world_size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt_{attempt}", store)  # else gloo takes addresses of processes that are gone
    backend = "nccl" if has_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    _create_local_process_group(local_size)
    try:
        result = main(args)
    except Interrupted:
        _leave_alone()
    _leave_process_group()
    return result


def take_gpu(local_rank: int, local_size: int) -> None:
    """Let this process of torchrun use the GPU of its number.

    Raises:
        InputError: there are fewer GPUs than processes on this machine.
    """
    if torch.cuda.device_count() < local_size:
        raise InputError(f"torchrun --nproc-per-node {local_size}: this machine has {torch.cuda.device_count()} GPUs")
    torch.cuda.set_device(local_rank)


def _leave_process_group() -> None:
    """Together, and before Python ends: threads of torch that are there at the end can abort the process.

    Not after an error: it would wait for processes that wait for this one.
    """
    comm.synchronize()
    dist.destroy_process_group()


def _leave_alone() -> NoReturn:
    """End this process without waiting for the others, which are somewhere in an evaluation. All is saved by now."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


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
