#!/usr/bin/env python
"""Say what this environment has and lacks, and run a small detector in it. Exit status 1 if that fails."""

import argparse
import sys
import warnings

warnings.simplefilter("ignore")  # what libraries say at import is of no use here


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    from resnet_det.engine.environment import describe_environment, self_test

    print("\n".join(f"  {line}" for line in describe_environment()))
    self_test()
    print("  self-test passed: a Mask R-CNN with our ResNet-18-FPN runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
