"""The fast mapper: the same boxes, masks and keypoints as by Detectron2's, and pixels that differ by rounding."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BitMasks, BoxMode
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import FastDatasetMapper, build_mapper
from resnet_det.data.loading.bad_images import SKIPPED
from resnet_det.data.loading.loader import TrainDataset
from resnet_det.data.mapping.fast_annotations import transform_annotations
from resnet_det.data.mapping.fast_image import read_image, resize_image, to_tensor
from resnet_det.images.image_input import ImageInput

MASKS = ["MODEL.MASK_ON", True]
BIT_MASKS = [*MASKS, "INPUT.MASK_FORMAT", "bitmask"]


def make_photo(height, width):
    """Noise that has been blurred, (height, width, 3) uint8: JPEG files keep most of it."""
    small = np.random.randint(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


def encode(image, file_format="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Data set dicts of three JPEG files: boxes with and without fractions, several polygons, run lengths, a crowd."""
    dicts = []
    for number, (height, width) in enumerate([(120, 160), (170, 130), (97, 211)]):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encode(Image.fromarray(make_photo(height, width)), quality=92))
        annotations = []
        for index in range(6):
            x0, y0 = np.random.uniform(0, (width - 40, height - 40))
            corners = np.random.uniform(0, 40, (2, 14)) + [[x0, y0] * 7] * 2
            if index % 2:
                (x0, y0), corners = (int(x0), int(y0)), corners.astype(int)
            annotations.append(
                {
                    "bbox": [x0, y0, 38 if index % 2 else 37.77, 31],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": index,
                    "iscrowd": int(index == 4),
                    "segmentation": corners[: 1 + index % 2].tolist(),
                    "keypoints": np.random.uniform(0, 90, (17, 3)).round(1).ravel().tolist(),
                }
            )
        annotations[4]["segmentation"] = mask_util.frPyObjects(corners.tolist(), height, width)[0]
        dicts.append(
            {"file_name": str(path), "height": height, "width": width, "image_id": number, "annotations": annotations}
        )
    return dicts


def assert_nearly_same(ours, theirs, *, mean=0.02, most=1):
    """Equal, but for the rounding of pixels."""
    assert ours.keys() == theirs.keys()
    assert ours["image"].shape == theirs["image"].shape
    assert ours["image"].dtype == theirs["image"].dtype
    off = (ours["image"].double() - theirs["image"].double()).abs()
    assert off.mean() < mean
    assert off.max() <= most
    assert theirs["image"].double().std() > 0.1
    assert all(ours[key] == theirs[key] for key in ours.keys() - {"image", "instances", "sem_seg"})
    if "instances" not in theirs:
        return
    assert ours["instances"].image_size == theirs["instances"].image_size
    ours, theirs = ours["instances"].get_fields(), theirs["instances"].get_fields()
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["gt_boxes"].tensor, theirs["gt_boxes"].tensor)
    assert ours["gt_boxes"].tensor.dtype == theirs["gt_boxes"].tensor.dtype
    assert torch.equal(ours["gt_classes"], theirs["gt_classes"])
    if "gt_keypoints" in theirs:
        assert torch.equal(ours["gt_keypoints"].tensor, theirs["gt_keypoints"].tensor)
    if isinstance(theirs.get("gt_masks"), BitMasks):
        assert torch.equal(ours["gt_masks"].tensor, theirs["gt_masks"].tensor)
    elif "gt_masks" in theirs:
        pairs = zip(ours["gt_masks"].polygons, theirs["gt_masks"].polygons, strict=True)
        assert all(np.array_equal(a, b) for polygons in pairs for a, b in zip(*polygons, strict=True))


def compare_on_random_draws(cfg, dicts, *, draws=3, **limits):
    theirs = build_mapper(cfg, True, dicts)
    cfg.RESNET_DET.DATA.MAPPER = "fast"
    ours = build_mapper(cfg, True, dicts)
    for seed in range(draws):
        for entry in dicts:
            np.random.seed(seed)
            expected = theirs(entry)
            np.random.seed(seed)
            assert_nearly_same(ours(entry), expected, **limits)


@pytest.mark.parametrize(
    "opts",
    [
        [],
        MASKS,
        [*MASKS, "INPUT.RANDOM_FLIP", "vertical", "INPUT.FORMAT", "RGB"],
        [*BIT_MASKS, "MODEL.KEYPOINT_ON", True, "DATASETS.TRAIN", ("keypoints_coco_2017_val",)],
        [*BIT_MASKS, "INPUT.CROP.ENABLED", True],
        [*MASKS, "RESNET_DET.DATA.LSJ.ENABLED", True, "RESNET_DET.DATA.LSJ.SIZE", 150],
        [*MASKS, "INPUT.FORMAT", "L"],
    ],
)
def test_every_draw_gives_what_detectron2_gives(default_cfg, photos, opts):
    default_cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (60, 150, 200), *opts])
    compare_on_random_draws(default_cfg, photos)


def test_colours_differ_by_no_more_than_their_stretching(default_cfg, photos):
    data = default_cfg.RESNET_DET.DATA
    data.PHOTOMETRIC.PROB = 1.0
    compare_on_random_draws(default_cfg, photos)


def test_pasted_objects_are_the_same(default_cfg, photos):
    default_cfg.merge_from_list([*BIT_MASKS, "RESNET_DET.DATA.COPY_PASTE.PROB", 0.7])
    default_cfg.merge_from_list(["RESNET_DET.DATA.LSJ.ENABLED", True, "RESNET_DET.DATA.LSJ.SIZE", 150])
    compare_on_random_draws(default_cfg, photos)


def test_float_pixels_are_detectron2s(default_cfg, photos):
    default_cfg.INPUT.FORMAT = "YUV-BT.601"
    compare_on_random_draws(default_cfg, photos, draws=1, mean=1e-12, most=1e-12)


@pytest.mark.parametrize("opts", [[], ["INPUT.MIN_SIZE_TEST", 50]])
def test_test_images_are_resized_alike_and_keep_no_annotations(default_cfg, photos, opts):
    default_cfg.merge_from_list(opts)
    theirs, ours = DatasetMapper(default_cfg, False), FastDatasetMapper(default_cfg, False)
    for entry in photos:
        assert_nearly_same(ours(entry), theirs(entry))


def test_crops_cut_polygons_as_detectron2_does(photos):
    arguments = {
        "is_train": True,
        "augmentations": [T.ResizeShortestEdge(150), T.RandomCrop("relative", (0.5, 0.6)), T.RandomFlip()],
        "image_format": "BGR",
        "use_instance_mask": True,
    }
    for seed, entry in enumerate(photos * 2):
        entry = {**entry, "annotations": [a for a in entry["annotations"] if not a["iscrowd"]]}
        np.random.seed(seed)
        expected = DatasetMapper(**arguments)(entry)
        np.random.seed(seed)
        assert_nearly_same(FastDatasetMapper(**arguments)(entry), expected)


def test_real_photographs(default_cfg, shared_data):
    root = shared_data("coco_mini") / "coco"
    default_cfg.MODEL.MASK_ON = True
    dicts = load_coco_json(str(root / "annotations/instances_train2017.json"), str(root / "train2017"))
    compare_on_random_draws(default_cfg, dicts[:12], draws=1)


def test_the_data_set_dict_stays_as_it_is(default_cfg, photos):
    before = repr(photos[0])
    default_cfg.MODEL.MASK_ON = True
    FastDatasetMapper(default_cfg, True)(photos[0])
    FastDatasetMapper(default_cfg, False)(photos[0])
    assert repr(photos[0]) == before


def test_semantic_labels_and_proposals_are_handed_on(default_cfg, photos, tmp_path):
    entry = photos[0]
    labels = np.random.randint(0, 5, (entry["height"], entry["width"]), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    entry = {
        **entry,
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "proposal_boxes": np.array([[3.0, 4, 50, 60], [1, 2, 3, 4]]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
        "proposal_objectness_logits": np.array([2.0, 1.0]),
    }
    default_cfg.MODEL.LOAD_PROPOSALS = True
    found = []
    for mapper in (FastDatasetMapper(default_cfg, True), DatasetMapper(default_cfg, True)):
        np.random.seed(1)
        found.append(mapper(entry))
    ours, theirs = found
    assert torch.equal(ours["sem_seg"], theirs["sem_seg"])
    assert ours["sem_seg"].unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(ours["proposals"].proposal_boxes.tensor, theirs["proposals"].proposal_boxes.tensor)
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("kind", ["array boxes", "tuple boxes", "XYXY"])
def test_boxes_and_polygons_of_other_types(photos, kind):
    transforms = T.AugmentationList([T.ResizeShortestEdge(150), T.RandomFlip(1.0)])(T.AugInput(make_photo(120, 160)))
    annotations = [a for a in photos[0]["annotations"] if not a["iscrowd"]]
    for annotation in annotations:
        annotation.pop("keypoints")
        if kind == "array boxes":  # Detectron2 v0.5 takes them in no other mode
            annotation.update(bbox=np.array(annotation["bbox"]), bbox_mode=BoxMode.XYXY_ABS)
            annotation["segmentation"] = [np.array(polygon) for polygon in annotation["segmentation"]]
        elif kind == "tuple boxes":
            annotation["bbox"] = tuple(annotation["bbox"])
        else:
            annotation["bbox_mode"] = BoxMode.XYXY_ABS
    before = repr(annotations)
    ours = transform_annotations(annotations, transforms, (150, 200))
    assert repr(annotations) == before
    for found, annotation in zip(ours, annotations, strict=True):
        expected = detection_utils.transform_instance_annotations(annotation, transforms, (150, 200))
        assert np.array_equal(found["bbox"], expected["bbox"])
        assert all(np.array_equal(*pair) for pair in zip(found["segmentation"], expected["segmentation"], strict=True))


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601"])
@pytest.mark.parametrize(
    "kind",
    ["plain", "progressive", "4:4:4", "grey", "CMYK", "upright", "rotated", "mirrored", "PNG", "palette"],
)
def test_any_file_is_read_as_by_detectron2(tmp_path, kind, image_format):
    photo = Image.fromarray(make_photo(61, 83))
    exif = Image.Exif()
    exif[0x0112] = {"upright": 1, "rotated": 6, "mirrored": 2}.get(kind, 1)
    content = {
        "progressive": lambda: encode(photo, progressive=True),
        "4:4:4": lambda: encode(photo, subsampling=0, quality=100),
        "grey": lambda: encode(photo.convert("L")),
        "CMYK": lambda: encode(photo.convert("CMYK")),
        "PNG": lambda: encode(photo, "PNG"),
        "palette": lambda: encode(photo.quantize(20), "PNG"),
    }.get(kind, lambda: encode(photo, exif=exif))()
    path = tmp_path / "image"
    path.write_bytes(content)
    expected = detection_utils.read_image(str(path), image_format)
    found = read_image(str(path), ImageInput(image_format))
    assert found.shape == expected.shape == ((83, 61) if kind == "rotated" else (61, 83)) + expected.shape[2:]
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("fault", ["cut off", "no image", "empty", "missing", "broken header"])
def test_what_cannot_be_read_fails_as_in_detectron2_and_is_skipped(default_cfg, photos, fault):
    path = photos[0]["file_name"]
    with open(path, "rb") as file:
        content = file.read()
    broken = {
        "cut off": content[: len(content) * 2 // 3],
        "no image": b"<html>not found</html>",
        "empty": b"",
        "missing": None,
        "broken header": content[:2] + bytes(100) + content[102:],
    }[fault]
    if broken is None:
        photos[0]["file_name"] = path = path + ".gone"
    else:
        with open(path, "wb") as file:
            file.write(broken)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        detection_utils.read_image(path, "BGR")
    with pytest.raises(theirs.type) as ours:
        read_image(path, ImageInput())
    assert str(ours.value) == str(theirs.value)
    dataset = TrainDataset(photos, FastDatasetMapper(default_cfg, True), seed=0, on_bad_image="skip")
    sample = dataset[0, 0]
    assert sample["image_id"] == 1
    assert [name for name, _ in sample[SKIPPED]] == [path]


def test_an_image_of_another_size_than_annotated_is_named(default_cfg, photos):
    photos[0]["width"] += 1
    with pytest.raises(detection_utils.SizeMismatchError, match=r"0\.jpg"):
        FastDatasetMapper(default_cfg, True)(photos[0])


@pytest.mark.parametrize("size", [(40, 53), (83, 110), (119, 161), (240, 333), (30, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pils(size, channels):
    image = np.ascontiguousarray(make_photo(120, 160)[:, :, :channels])
    expected = T.ResizeTransform(120, 160, *size).apply_image(image)
    found = resize_image(image, *size)
    off = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape
    assert off.mean() < 0.25
    assert off.max() <= 1


def test_tensors_of_views_of_any_direction():
    image = make_photo(24, 36)
    for view in (image, image[:, ::-1], image[::-1], image[::-1, ::-1], image[3:20, 5:30], image[:, :, ::-1]):
        assert np.array_equal(to_tensor(view).numpy(), view.transpose(2, 0, 1))
        assert np.array_equal(to_tensor(view[:, :, :1]).numpy(), view[:, :, :1].transpose(2, 0, 1))
