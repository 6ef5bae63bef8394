"""The command line of tools/explain_resnet.py."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import torch

from resnet_det.errors import InputError
from resnet_det.explain.catalog import EXPERIMENTS
from resnet_det.explain.data import Data
from resnet_det.explain.experiment import Experiment
from resnet_det.explain.settings import Settings, change_settings

PAGE = "page"
EPILOG = """
Examples:
  %(prog)s degradation --data cifar10/ --output output/explained
  %(prog)s lesion --data cifar10/ --output output/explained --weights resnet20.th resnet56.th
  %(prog)s all --data cifar10/ --output output/explained --full      on a GPU, days
  %(prog)s page --output output/explained

What has been measured is in OUTPUT/results, and is not measured again; trained nets are in OUTPUT/nets, and all
experiments share them. A command that was broken off goes on where it was.
"""


def build_parser(description: str) -> argparse.ArgumentParser:
    """A sub-command for each experiment, one for all, and one for the page."""
    parser = argparse.ArgumentParser(
        description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for experiment in EXPERIMENTS.values():
        described = f"{experiment.statement} Two seeds take about {experiment.duration} on two cores."
        command = commands.add_parser(experiment.name, help=experiment.title, description=described)
        _add_common(command, experiment)
    command = commands.add_parser("all", help="all experiments, one after the other")
    _add_common(command, None)
    command = commands.add_parser(PAGE, help="write the page anew")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results are")
    return parser


def _add_common(parser: argparse.ArgumentParser, experiment: Experiment | None) -> None:
    sizes = experiment.sizes if experiment else Settings(())
    each = "its own" if experiment is None else None
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER",
        help="images: train/CLASS/*.jpg and test/CLASS/*.jpg, or CIFAR-10's files as they are published",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where all of it goes")
    parser.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="how often, with seeds 0, 1, ... (default: 2)"
    )
    parser.add_argument("--full", action="store_true", help="the sizes of the papers, for a GPU")
    parser.add_argument(
        "--images", type=int, metavar="N",
        help=f"train on so many, always the same ones; 0: all (default: {each or sizes.images})",
    )  # fmt: skip
    parser.add_argument(
        "--test-images", type=int, metavar="N",
        help=f"test on so many; 0: all (default: {each or sizes.test_images})",
    )  # fmt: skip
    parser.add_argument(
        "--iterations", type=int, metavar="N", help=f"of training (default: {each or sizes.iterations})"
    )
    parser.add_argument("--epochs", type=float, metavar="N", help="of training, in place of iterations")
    parser.add_argument("--batch", type=int, metavar="N", help=f"images a step (default: {each or sizes.batch})")
    parser.add_argument(
        "--probes", type=int, metavar="N",
        help=f"images that trained or new nets are measured with (default: {each or sizes.probes})",
    )  # fmt: skip
    depths = each or " ".join(map(str, sizes.depths))
    told = f"layers, 6n + 2 each (default: {depths}{'; thousand keeps its own' if each else ''})"
    parser.add_argument("--depths", type=int, nargs="+", metavar="D", help=told)
    if experiment is None or experiment.takes_weights:
        parser.add_argument(
            "--weights", type=Path, nargs="+", default=[], metavar="FILE",
            help="measure nets from elsewhere in place of training any, one of each kind and depth",
        )  # fmt: skip
    else:
        parser.set_defaults(weights=[])
    parser.set_defaults(detectors=None)
    if experiment is None or experiment.name == "returns":
        parser.add_argument(
            "--detectors", type=Path, metavar="FILE",
            help="tradeoff.json of tools/compare_depths.py, to say the same of detectors",
        )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--overwrite", action="store_true", help="measure anew; trained nets stay")


def choose_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Those that the command names; with --weights "all" means those that take them."""
    if args.command != "all":
        return [EXPERIMENTS[args.command]]
    return [experiment for experiment in EXPERIMENTS.values() if experiment.takes_weights or not args.weights]


def choose_settings(args: argparse.Namespace, experiment: Experiment, data: Data) -> Settings:
    """
    Raises:
        InputError: a value that cannot be.
    """
    # Of all experiments together, depths are for those that compare some.
    depths = None if args.command == "all" and experiment.most_depths == 1 else args.depths
    changed = change_settings(
        experiment.full if args.full else experiment.sizes,
        depths=tuple(depths) if depths else None,
        images=args.images,
        test_images=args.test_images,
        iterations=args.iterations,
        epochs=args.epochs,
        batch=args.batch,
        probes=args.probes,
        num_images=data.count("train"),
    )
    experiment.check_depths(changed.depths)
    return changed


def choose_device(args: argparse.Namespace) -> str:
    """
    Raises:
        InputError: there is no GPU, and one is asked for.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here")
    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")


def tell_command(argv: list[str]) -> str:
    """The command as it was typed, for others to repeat."""
    return shlex.join(["tools/explain_resnet.py", *argv])
