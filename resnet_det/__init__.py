"""Our own ResNet backbone for Detectron2. Importing the package registers its builders (MODEL.BACKBONE.NAME).

Where Detectron2 is not installed, ``resnet_det.deploy`` works alone.
"""

from importlib.util import find_spec

__version__ = "0.1.0"

__all__ = [
    "DenseNet",
    "LoadReport",
    "ResNet",
    "__version__",
    "add_resnet_det_config",
    "load_weights",
    "make_densenet",
    "make_resnet",
    "prepare_for_inference",
    "replace_detectron2_resnet",
    "use_fast_roi_align",
]

if find_spec("detectron2"):
    import resnet_det.quiet_imports  # noqa: F401  # isort: skip  # before all others

    from resnet_det.config import add_resnet_det_config
    from resnet_det.modeling import (
        DenseNet,
        ResNet,
        make_densenet,
        make_resnet,
        prepare_for_inference,
        replace_detectron2_resnet,
        use_fast_roi_align,
    )
    from resnet_det.weights import LoadReport, load_weights
else:

    def __getattr__(name: str) -> None:
        if name in __all__:
            raise ImportError(f"resnet_det.{name} needs Detectron2: tools/install_detectron2.py puts it in place")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
