"""report.html at the end of a run."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from resnet_det.data.loading.coco_json import reading_rules
from resnet_det.errors import InputError
from resnet_det.evaluation import inference_folder
from resnet_det.evaluation.build import find_max_detections

logger = logging.getLogger(__name__)


def write_run_reports(cfg: CfgNode, weights: Path | None) -> None:
    """Write report.html and evaluation.json for the COCO sets among DATASETS.TEST that were just evaluated.

    They go to OUTPUT_DIR or, with several sets, to the folder of each one's results. A report that fails is said in
    the log and changes nothing else: the results of the run are written by then.

    Args:
        weights: the evaluated weights.
    """
    if not cfg.RESNET_DET.TEST.REPORT:
        return
    # Charts and pictures need libraries that take a second to import: not in each process that trains.
    from resnet_det.evaluation.files import evaluate_files, hash_file

    if cfg.RESNET_DET.TEST.MAX_IMAGES:
        logger.info("No report.html: RESNET_DET.TEST.MAX_IMAGES leaves out images")
        return
    facts = {}
    if weights is not None and weights.is_file():
        facts["weights"] = f"{weights}, sha256 {hash_file(weights)}"
    for name in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(name)
        folder = inference_folder(cfg, name)
        results = folder / "coco_instances_results.json"
        if not results.is_file() or metadata.get("json_file") is None:
            continue
        output = Path(cfg.OUTPUT_DIR) if len(cfg.DATASETS.TEST) == 1 else folder
        try:
            evaluate_files(
                Path(metadata.json_file),
                results,
                images=Path(metadata.image_root),
                output=output,
                facts=facts,
                config=cfg.dump(),
                kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
                **reading_rules(name),
                max_detections=find_max_detections(cfg),
                overwrite=True,
            )
        except InputError as error:
            logger.warning("No report.html for %s: %s", name, error)
        except Exception:
            logger.exception("report.html for %s could not be made; the results are not touched by that", name)
        else:
            logger.info("Report on %s: %s", name, output / "report.html")
