"""The demo data: shapes on plain ground, made here, the same on every machine."""

from resnet_det.data.demo.data import CROWD_EVERY, SPLITS, make_demo_data, write_split

__all__ = ["CROWD_EVERY", "SPLITS", "make_demo_data", "write_split"]
