"""A choice of classes, and several sets whose classes come in different orders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from resnet_det.config import check_cfg
from resnet_det.data import load_dataset_dicts, prepare_cfg_datasets, read_coco, register_cfg_datasets
from resnet_det.errors import InputError
from resnet_det.evaluation.evaluator import FastCOCOEvaluator
from resnet_det.evaluation.files import evaluate_files

NAMES = ("cat", "dog", "emu")


def write_set(folder, name, ids, *, names=NAMES):
    """One image with an object of each of ``names``, whose category ids are ``ids``; object k is k + 10 pixels wide."""
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 60, "width": 200}],
        "annotations": [
            {"id": k + 1, "image_id": 7, "category_id": ids[k], "bbox": [50 * k, 5, 10 + NAMES.index(name), 20]}
            for k, name in enumerate(names)
        ],
        "categories": [{"id": ids[k], "name": name} for k, name in enumerate(names)],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return [f"{folder.name}_{name}", str(path), str(folder)]


@pytest.fixture
def sets(tmp_path):
    Image.fromarray(np.zeros((60, 200, 3), np.uint8)).save(tmp_path / "a.png")
    return write_set(tmp_path, "one", (1, 2, 3)), write_set(tmp_path, "other", (9, 4, 5))


def configure(cfg, sets, classes=()):
    cfg.RESNET_DET.DATA.COCO, cfg.RESNET_DET.DATA.CLASSES = list(sets), list(classes)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (sets[0][0],), tuple(entry[0] for entry in sets[1:])
    register_cfg_datasets(cfg)
    prepare_cfg_datasets(cfg, cfg.DATASETS.TRAIN)


def widths_of_classes(name):
    (entry,) = load_dataset_dicts([name])
    return {item["category_id"]: item["bbox"][2] for item in entry["annotations"]}


def test_sets_with_the_same_classes_in_another_order_count_them_alike(default_cfg, sets):
    cfg = default_cfg
    assert read_coco(sets[1][1]).class_names == ["dog", "emu", "cat"]
    configure(cfg, sets)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert widths_of_classes(sets[0][0]) == widths_of_classes(sets[1][0]) == {0: 10, 1: 11, 2: 12}
    metadata = MetadataCatalog.get(sets[1][0])
    assert metadata.thing_classes == cfg.RESNET_DET.DATA.CLASSES == list(NAMES)
    assert metadata.thing_dataset_id_to_contiguous_id == {9: 0, 4: 1, 5: 2}


def test_what_is_evaluated_by_the_config_of_a_run_counts_classes_as_the_run_did(default_cfg, sets):
    cfg = default_cfg.clone()
    configure(cfg, sets)
    kept = default_cfg.clone()
    kept.merge_from_other_cfg(type(cfg).load_cfg(cfg.dump()))
    configure(default_cfg, sets[1:])
    assert widths_of_classes(sets[1][0]) == {0: 11, 1: 12, 2: 10}, "alone, it has its own order"
    register_cfg_datasets(kept)
    prepare_cfg_datasets(kept, ())  # --eval-only
    assert widths_of_classes(sets[1][0]) == {0: 10, 1: 11, 2: 12}


def test_a_choice_of_classes_is_what_is_trained_and_evaluated(default_cfg, sets, tmp_path, caplog):
    cfg = default_cfg
    configure(cfg, sets, ["emu", "cat"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    with caplog.at_level("WARNING"):
        assert widths_of_classes(sets[0][0]) == widths_of_classes(sets[1][0]) == {0: 12, 1: 10}
    assert "1 of 3 annotations: object of a class that was not chosen" in caplog.text
    evaluator = FastCOCOEvaluator(sets[1][0], ["bbox"], output_dir=str(tmp_path / "out"))
    evaluator.reset()
    evaluator._predictions = [
        {
            "image_id": 7,
            "instances": [
                {"image_id": 7, "category_id": index, "score": 0.9, "bbox": [x, 5, width, 20]}
                for index, x, width in ((0, 100, 12), (1, 0, 10))
            ],
        }
    ]
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert [key for key in results["bbox"] if key.startswith("AP-")] == ["AP-emu", "AP-cat"]
    (analysis,), _ = evaluate_files(
        tmp_path / "other.json", tmp_path / "out/coco_instances_results.json", classes=["emu", "cat"]
    )
    assert analysis.metrics["AP"] == pytest.approx(100)
    configure(cfg, sets)  # the choice of one run does not stay for the next
    assert len(widths_of_classes(sets[1][0])) == 3


def test_what_a_set_lacks_stays_a_class_without_objects(default_cfg, sets, tmp_path):
    cfg = default_cfg
    small = write_set(tmp_path, "small", (3, 2), names=("emu", "dog"))
    configure(cfg, (sets[0], small), ["cat", "emu"])
    assert widths_of_classes(small[0]) == {1: 12}
    data = read_coco(small[1], classes=["cat", "emu"])
    assert [(entry["id"], entry["name"]) for entry in data.categories] == [(1, "cat"), (3, "emu")]
    assert "it has no class 'cat', which was chosen" in list(data.describe_warnings())
    assert data.count_use().left_out == {"objects: other-class": 1}


def test_wrong_choices(default_cfg, sets, tmp_path):
    with pytest.raises(InputError, match=r"one.json: no class is called 'dogs'; .*did you mean 'dog'\?"):
        configure(default_cfg, sets, ["dogs"])
    default_cfg.RESNET_DET.DATA.CLASSES = ["dog", "dog"]
    assert any("DATA.CLASSES" in problem for problem in check_cfg(default_cfg))
    default_cfg.RESNET_DET.DATA.CLASSES = ["dog"]
    default_cfg.DATASETS.TRAIN, default_cfg.DATASETS.TEST = ("voc_2007_val",), ()
    register_cfg_datasets(default_cfg)
    with pytest.raises(InputError, match=r"voc_2007_val is not in COCO format"):
        prepare_cfg_datasets(default_cfg, default_cfg.DATASETS.TRAIN)
    default_cfg.RESNET_DET.DATA.CLASSES = []
    register_cfg_datasets(default_cfg)
    other = write_set(tmp_path, "more", (1, 2), names=("cat", "dog"))
    with pytest.raises(InputError, match="do not have the same classes"):
        configure(default_cfg, (sets[0], other))
