#!/usr/bin/env python
"""How good is a detector on few images? Train one for each of K folds, each tested on the images it has not seen.

Written to --output: the folds (COCO files), an ordinary run for each, the mean over folds with its interval
(cross_validation.json), and report.html of the predictions of all folds together. Ends with status 1 if a signal has
stopped a training, 2 for a wrong input.
"""

import sys

from detectron2.utils.logger import setup_logger

from resnet_det.cross_validation import TrainingStoppedError, build_parser, cross_validate
from resnet_det.cross_validation.report import format_folds
from resnet_det.errors import InputError


def main() -> int:
    args = build_parser(__doc__).parse_args()
    setup_logger(name="resnet_det")
    try:
        done = cross_validate(
            args.config_file,
            args.data,
            args.images,
            args.output,
            folds=args.folds,
            seed=args.seed,
            group_by=args.group_by,
            opts=args.opts,
            num_gpus=args.num_gpus,
        )
    except InputError as error:
        print(f"cross_validate: {error}", file=sys.stderr)
        return 2
    except TrainingStoppedError as error:
        print(f"cross_validate: {error}; the same command goes on with it", file=sys.stderr)
        return 1
    print(format_folds(done.results, done.means, done.pooled))
    print(f"\nWritten: {args.output / 'report.html'}, {args.output / 'cross_validation.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
