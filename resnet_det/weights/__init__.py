"""Weights of any ResNet: where they are, how their tensors are called, and how they get into a model."""

from resnet_det.weights.catalog import Conventions, WeightsEntry, find_entry, list_entries
from resnet_det.weights.conventions import describe_net, describe_stride, find_conventions, to_json
from resnet_det.weights.convert import ConversionReport, convert_weights
from resnet_det.weights.load import LoadReport, load_weights
from resnet_det.weights.names import NAMINGS, from_detectron2_names, naming_of, to_detectron2_names
from resnet_det.weights.readers import TRAINED_WITH, read_checkpoint, read_tensors, write_tensors
from resnet_det.weights.sources import fetch_weights

__all__ = [
    "NAMINGS",
    "TRAINED_WITH",
    "Conventions",
    "ConversionReport",
    "LoadReport",
    "WeightsEntry",
    "convert_weights",
    "describe_net",
    "describe_stride",
    "fetch_weights",
    "find_conventions",
    "find_entry",
    "from_detectron2_names",
    "list_entries",
    "load_weights",
    "naming_of",
    "read_checkpoint",
    "read_tensors",
    "to_detectron2_names",
    "to_json",
    "write_tensors",
]
