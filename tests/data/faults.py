"""Faults planted into a sound data set, for the tests of its inspection and its cleaning."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import numpy as np
import pycocotools.mask
from PIL import Image

NUM_MADE = 48
SIZE = (320, 240)  # width, height


def make_set(folder: Path, seed: int) -> tuple[Path, Path]:
    """A sound set: smooth noise with three boxes each, polygons, and both kinds of run-length masks."""
    random = np.random.default_rng(seed)
    images = folder / folder.name
    images.mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}
    for number in range(1, NUM_MADE + 1):
        colours = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        colours.resize(SIZE, Image.Resampling.BICUBIC).save(images / f"{number}.jpg")
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for place in range(3):
            x, y = 4 + 105 * place, int(random.integers(2, 100))
            w, h = (int(side) for side in random.integers(60, 95, 2))
            rectangle = np.zeros(SIZE[::-1], dtype=np.uint8, order="F")
            rectangle[y : y + h, x : x + w] = 1
            mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if place == 2 and number <= 4:  # a crowd region and an object, not in images that get planted faults
                mask = pycocotools.mask.encode(rectangle)
                mask["counts"] = mask["counts"].decode()
                if number <= 2:
                    changes = np.flatnonzero(np.diff(rectangle.reshape(-1, order="F"))) + 1
                    mask["counts"] = np.diff([0, *changes, rectangle.size]).tolist()
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": (3, 7)[number % 2],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(place == 2 and number <= 2),
                    "segmentation": mask,
                }
            )
    path = folder / f"{folder.name}.json"
    path.write_text(json.dumps(content))
    return path, images


class Planter:
    """Plants faults into the files of one set, each into an image or annotation of its own, and remembers them."""

    def __init__(self, annotation_file: Path, images: Path):
        self.path, self.folder = annotation_file, images
        self.content = json.loads(annotation_file.read_text())
        self.planted: list[tuple[str, str, object]] = []  # kind, section, id
        crowded = {a["image_id"] for a in self.content["annotations"] if not isinstance(a["segmentation"], list)}
        free = [image for image in self.content["images"] if image["id"] not in crowded]
        self.images = iter(free[:13])
        others = {image["id"]: image for image in free[13:]}
        self.annotations = iter(
            [
                (annotation, others[annotation["image_id"]])
                for annotation in self.content["annotations"]
                if annotation["image_id"] in others and min(annotation["bbox"][2:]) >= 40
            ]
        )
        self.fresh_id = max(e["id"] for key in ("images", "annotations") for e in self.content[key]) + 1000

    def note(self, kind: str, section: str, entry: dict) -> None:
        self.planted.append((kind, section, entry["id"]))

    def add(self, section: str, entry: dict, **changes) -> dict:
        self.fresh_id += 1
        self.content[section].append(copy.deepcopy(entry) | {"id": self.fresh_id} | changes)
        return self.content[section][-1]

    def change_file(self, kind: str, change) -> None:
        image = next(self.images)
        change(self.folder / image["file_name"], image)
        self.note(kind, "images", image)

    def change_annotation(self, kind: str, **changes) -> None:
        annotation, _ = next(self.annotations)
        if "segmentation" not in changes and "bbox" in changes:
            del annotation["segmentation"]  # which would no longer fit the box: another fault
            if kind == "box-partly-outside":  # the others are left out, and their masks do not matter
                self.note("empty-mask", "annotations", annotation)
        annotation.update(changes)
        self.note(kind, "annotations", annotation)

    def save(self) -> None:
        self.path.write_text(json.dumps(self.content))


def _save(path: Path, image: Image.Image, file_format: str = "JPEG", **options) -> None:
    image.save(path, file_format, **options)


def _orient(path: Path, orientation: int) -> None:
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    _save(path, image.convert("RGB"), exif=exif)


def _add_a_page(path: Path, _) -> None:
    image = Image.open(path).convert("RGB")
    _save(path, image, "TIFF", save_all=True, append_images=[image.rotate(180)])


def plant_image_faults(planter: Planter) -> None:
    for kind, change in (
        ("missing-image", lambda path, _: path.unlink()),
        ("unreadable-image", lambda path, _: path.write_text("not an image")),
        ("truncated-image", lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
        ("wrong-size", lambda _, image: image.update(width=image["width"] + 7)),
        ("exif-size", lambda path, _: _orient(path, 6)),
        ("exif-rotation", lambda path, _: _orient(path, 3)),
        ("cmyk-image", lambda path, _: _save(path, Image.open(path).convert("CMYK"))),
        (
            "16-bit-image",
            lambda path, _: _save(
                path, Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 257), "PNG"
            ),
        ),
        ("animated-image", _add_a_page),
        ("grey-image", lambda path, _: _save(path, Image.open(path).convert("L"))),
    ):
        planter.change_file(kind, change)
    image = next(planter.images)
    again = planter.add("images", image)
    annotation = next(a for a in planter.content["annotations"] if a["image_id"] == image["id"])
    planter.add("annotations", annotation, image_id=again["id"])
    planter.note("file-listed-twice", "images", again)
    image = next(planter.images)
    (planter.folder / "other.jpg").write_bytes((planter.folder / image["file_name"]).read_bytes())
    planter.note("duplicate-image-id", "images", planter.add("images", image, id=image["id"], file_name="other.jpg"))
    planter.note("unlabelled-image", "images", image)  # the second one: the annotations are counted for the first


def plant_annotation_faults(planter: Planter) -> None:
    content = planter.content
    planter.change_annotation("unknown-image-id", image_id=10**12)
    planter.change_annotation("unknown-category-id", category_id=9999)
    planter.change_annotation("duplicate-annotation-id", id=content["annotations"][0]["id"])
    category = content["categories"][0] | {"name": "another"}
    content["categories"].append(category)
    planter.note("duplicate-category-id", "categories", category)
    planter.change_annotation("malformed-entry", bbox=None)
    planter.change_annotation("box-not-finite", bbox=[float("nan"), 2, 50, 50])
    planter.change_annotation("box-not-finite", bbox=[1, 2, float("inf"), 50])
    planter.change_annotation("box-without-area", bbox=[10, 10, 0, 50])
    planter.change_annotation("box-without-area", bbox=[10, 90, 50, -40])
    planter.change_annotation("box-outside", bbox=[5000, 10, 50, 50])
    planter.change_annotation("box-partly-outside", bbox=[-5, 1, 55, 45])
    for kind, shift in (("duplicate-box", 0.5), ("near-duplicate-box", 3)):
        annotation, _ = next(planter.annotations)
        x, y, w, h = annotation["bbox"]
        planter.note(kind, "annotations", planter.add("annotations", annotation, bbox=[x + shift, y, w - shift, h]))
    planter.change_annotation("polygon-too-short", segmentation=[[1, 2, 3, 4]])
    annotation, _ = next(planter.annotations)
    annotation["segmentation"].append([1, 2, 3, 4, 5, 6, 7])
    planter.note("polygon-too-short", "annotations", annotation)
    planter.change_annotation("malformed-mask", segmentation="mask.png")
    planter.change_annotation("malformed-mask", segmentation=[[1, 2, float("nan"), 4, 5, 6]])
    planter.change_annotation("empty-mask", segmentation=[])
    annotation, image = next(planter.annotations)
    annotation["segmentation"] = {"size": [image["height"], image["width"]], "counts": [10, 10]}
    planter.note("malformed-mask", "annotations", annotation)
    planter.change_annotation("rle-size", segmentation={"size": [10, 10], "counts": [50, 50]})
    annotation, _ = next(planter.annotations)
    x, y, w, h = annotation["bbox"]
    annotation["segmentation"] = [[x, y, x + w / 2, y, x + w / 2, y + h / 2]]
    planter.note("mask-off-box", "annotations", annotation)
    planter.change_annotation("keypoints-length", keypoints=[1, 2])
    planter.change_annotation("keypoints-visibility", keypoints=[1, 2, 5])
    planter.change_annotation("keypoints-outside", keypoints=[1, 2, 2, -30, 2, 1])
    planter.change_annotation("missing-area", area=None)


def plant_copies(train: Planter, val: Planter) -> None:
    """Images of ``train`` into ``val``: one as it is, one smaller and compressed anew."""
    image, *_ = [image for _, image in train.annotations]
    source = train.folder / image["file_name"]
    (val.folder / "same.jpg").write_bytes(source.read_bytes())
    same = val.add("images", image, file_name="same.jpg")
    small = Image.open(io.BytesIO(source.read_bytes())).convert("RGB").resize((200, 150))
    _save(val.folder / "small.jpg", small, quality=60)
    near = val.add("images", image, file_name="small.jpg", width=200, height=150)
    val.note("identical-images", "images", same)
    val.note("near-duplicate-images", "images", near)
    for entry in (same, near):
        val.note("unlabelled-image", "images", entry)


def plant_all(train: tuple[Path, Path], val: tuple[Path, Path]) -> tuple[Planter, Planter]:
    planters = Planter(*train), Planter(*val)
    plant_image_faults(planters[0])
    plant_annotation_faults(planters[0])
    plant_copies(*planters)
    for planter in planters:
        planter.save()
    return planters
