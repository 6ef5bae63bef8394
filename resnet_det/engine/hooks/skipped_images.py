"""The list of images that could not be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class SkippedImagesHook(HookBase):
    """Lists the images that could not be used, in OUTPUT_DIR/skipped_images.json, at the end of training."""

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir, "skipped_images.json")

    def after_train(self) -> None:
        skipped = self.trainer.skipped
        if skipped and comm.is_main_process():
            self.path.write_text(json.dumps(skipped, indent=2))
            logger.warning("%d images could not be used: they are listed in %s", len(skipped), self.path)
