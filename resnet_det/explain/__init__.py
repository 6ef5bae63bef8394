"""Why ResNets are as they are: statements, each with an experiment that confirms it or does not.

In Python::

    data = Data("cifar10")
    order = Order(Path("output/explained"))
    verdict = run_experiment(EXPERIMENTS["degradation"], EXPERIMENTS["degradation"].sizes, data, order)
    print(verdict.sentence)
    write_page(order.output)  # output/explained/explained.html
"""

from resnet_det.explain.arguments import (
    PAGE,
    build_parser,
    choose_device,
    choose_experiments,
    choose_settings,
    tell_command,
)
from resnet_det.explain.catalog import EXPERIMENTS
from resnet_det.explain.data import Data
from resnet_det.explain.lab import TrainingStoppedError
from resnet_det.explain.page import write_page
from resnet_det.explain.run import Order, run_experiment

__all__ = [
    "EXPERIMENTS",
    "PAGE",
    "Data",
    "Order",
    "TrainingStoppedError",
    "build_parser",
    "choose_device",
    "choose_experiments",
    "choose_settings",
    "run_experiment",
    "tell_command",
    "write_page",
]
