#!/usr/bin/env python
"""Why ResNets are as they are: statements, each with an experiment that anyone repeats, and a page that shows them.

Each experiment has a sub-command; COMMAND --help says what it states and how long it takes. Written to --output:
explained.html, one file that opens without a server or the network, and what it is made of. Ends with status 2 for a
wrong input, and 1 if a signal has ended a training.
"""

import sys

from detectron2.utils.logger import setup_logger

from resnet_det.errors import InputError
from resnet_det.explain import (
    PAGE,
    Data,
    Order,
    TrainingStoppedError,
    build_parser,
    choose_device,
    choose_experiments,
    choose_settings,
    run_experiment,
    tell_command,
    write_page,
)


def main() -> int:
    args = build_parser(__doc__).parse_args()
    setup_logger(name="resnet_det")
    try:
        if args.command == PAGE:
            print(f"Written: {write_page(args.output)}")
            return 0
        data = Data(args.data)
        command = tell_command(sys.argv[1:])
        given = {"device": choose_device(args), "weights": args.weights, "detectors": args.detectors}
        order = Order(args.output, args.seeds, **given, overwrite=args.overwrite, command=command)
        chosen = [(experiment, choose_settings(args, experiment, data)) for experiment in choose_experiments(args)]
        for experiment, settings in chosen:
            verdict = run_experiment(experiment, settings, data, order)
            print(f"\n{experiment.statement}\n{verdict.sentence}\nWritten: {write_page(args.output)}", flush=True)
    except InputError as error:
        print(f"explain_resnet: {error}", file=sys.stderr)
        return 2
    except TrainingStoppedError as error:
        print(f"explain_resnet: {error}; the same command goes on with it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
