"""Imports Detectron2 without what torch says of it and of fvcore, that torch.jit.script is deprecated: every tool would
begin with that. Warnings of what is called later are shown."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    import detectron2.modeling  # noqa: F401
