"""Pictures of predictions: inputs of all kinds, what each flag changes, and what is said of wrong ones."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from resnet_det import add_resnet_det_config
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.visualize import draw_inputs, inputs, live, window
from resnet_det.engine.visualize.filters import Filter, find_classes
from resnet_det.engine.visualize.inputs import find_inputs
from resnet_det.errors import InputError

ALL = ("--confidence-threshold", "0")


def test_a_folder_and_a_pattern_and_a_file(run, folder, weights, tmp_path):
    summary = run("--input", folder, *ALL, "--batch-size", "2", opts=weights)
    assert [path.name for path in summary.written] == ["a.png", "b.png", "c.png"]
    assert (summary.unreadable, summary.num_images) == ([], 3)
    assert 0 < summary.seconds < 300
    assert cv2.imread(str(tmp_path / "drawn" / "a.png")).shape[:2] == (420, 540)
    assert len(run("--input", folder / "*.jpg", folder / "b.png", opts=weights).written) == 2
    assert len(run("--input", folder, "--num-images", "2", opts=weights).written) == 2


@pytest.mark.parametrize(
    ("what", "written"),
    [
        (["--input", "a.jpg"], ["a.jpg"]),
        (["--features", "--input", "a.jpg", "--num-detections", "0"], ["a-features.jpg"]),
        (["--results", "results.json", "--num-images", "1"], ["000001.jpg"]),
        (["--dataset", "vis_val", "--num-images", "1"], ["000001.jpg"]),
    ],
)
def test_pictures_are_jpeg_where_asked(run, folder, weights, what, written):
    (folder / "results.json").write_text("[]")
    what = [folder / word if "." in word else word for word in what]
    summary = run(*what, *ALL, "--picture-format", "jpg", opts=weights)
    assert [path.name for path in summary.written] == written
    assert summary.written[0].read_bytes().startswith(b"\xff\xd8\xff")
    assert f'href="{written[0]}"' in summary.page.read_text()


def test_a_corrupt_image_and_video_are_named_and_passed_over(run, folder, weights, caplog):
    good = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(good[: len(good) // 2])
    (folder / "d.png").write_bytes(b"\x89PNG not really")
    (folder / "e.mp4").write_bytes(b"no video")
    summary = run("--input", folder, opts=weights)
    assert [path.name for path in summary.written] == ["a.png", "c.png"]
    assert [path.name for path in summary.unreadable] == ["b.png", "d.png", "e.mp4"]
    assert "d.png: not a readable image" in caplog.text
    assert "e.mp4: not a readable video; passed over" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "empty", "no images or videos in this folder"),
        (lambda p: p / "nowhere.jpg", "nowhere.jpg: no such file or folder"),
        (lambda p: p / "*.gif", "no such file or folder"),
    ],
)
def test_no_images_is_an_error(tmp_path, make, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        find_inputs([str(make(tmp_path))])


def test_a_name_with_brackets_is_a_name_and_no_input_counts_twice(folder):
    shutil.copy(folder / "a.jpg", folder / "x[1].jpg")
    images, videos = find_inputs([str(folder / "x[1].jpg"), str(folder), str(folder / "*.jpg")])
    assert [path.name for path in images] == ["x[1].jpg", "a.jpg", "b.png", "c.bmp"]
    assert videos == []


def test_weights_must_be_there(run, folder, tmp_path):
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS is empty"):
        run("--input", folder)
    with pytest.raises(InputError, match=r"no.pth: no such file"):
        run("--input", folder, opts=["MODEL.WEIGHTS", tmp_path / "no.pth"])


def test_photos_need_no_data_set(run, folder, weights):
    gone = ["RESNET_DET.DATA.COCO", "[]", "DATASETS.TEST", "('nowhere_val',)", "MODEL.ROI_HEADS.NUM_CLASSES", "6"]
    assert len(run("--input", folder, opts=[*weights, *gone]).written) == 3


def test_a_batch_predicts_what_single_images_do(weights, default_cfg, request):
    default_cfg.merge_from_file(str(request.config.rootpath / "configs/demo/mask_rcnn_R_18_FPN.yaml"))
    default_cfg.MODEL.DEVICE, default_cfg.MODEL.WEIGHTS = "cpu", str(weights[1])
    default_cfg.INPUT.MIN_SIZE_TEST = 96
    predictor = Predictor(default_cfg)
    assert not predictor.model.training
    images = [np.random.randint(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(2)]
    together = predictor.predict(images)
    assert len(together[0]) > 0
    for image, want in zip(images, together, strict=True):
        (got,) = predictor.predict([image])
        torch.testing.assert_close(got.scores, want.scores, rtol=1e-3, atol=1e-4)
        assert want.image_size == (96, 128)


def test_pictures_of_the_same_name_do_not_overwrite_each_other(run, folder, weights):
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    written = run("--input", folder, opts=weights).written
    assert len(set(written)) == 4
    assert all(path.is_file() for path in written)


def test_predictions_are_written_as_coco_results_that_can_be_drawn_again(run, folder, weights, tmp_path):
    run("--input", folder, *ALL, opts=weights)
    out = tmp_path / "drawn"
    results, images = (json.loads((out / name).read_text()) for name in ("coco_instances_results.json", "images.json"))
    assert [image["file_name"] for image in images["images"]] == ["a.jpg", "b.png", "deeper/c.bmp"]
    assert {image["height"] for image in images["images"]} == {70}
    assert images["categories"][0] == {"id": 1, "name": "disc"}
    assert results
    assert {row["image_id"] for row in results} <= {1, 2, 3}
    assert {row["category_id"] for row in results} <= set(range(1, 7))
    assert results[0]["segmentation"]["size"] == [70, 90]
    again = ["--results", out / "coco_instances_results.json", "--annotations", out / "images.json"]
    summary = run(*again, "--images", folder, *ALL, output="again")
    assert len(summary.written) == 3
    shown = run("--input", folder, "--confidence-threshold", "0.99", opts=weights)
    assert shown.num_images == 3
    assert len(json.loads((shown.page.parent / "coco_instances_results.json").read_text())) < len(results)


def make_instances():
    instances = Instances((50, 50))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20], [1, 1, 4, 4]]))
    instances.scores, instances.pred_classes = torch.tensor([0.3, 0.9, 0.6]), torch.tensor([0, 1, 2])
    return instances


def test_filters_by_score_and_class():
    assert Filter(0.5).of_instances(make_instances()).pred_classes.tolist() == [1, 2]
    assert Filter(0.0, frozenset([0, 2])).of_instances(make_instances()).pred_classes.tolist() == [2, 0]
    assert find_classes(["Dog", "cat"], ["cat", "fish", "dog"]) == {0, 2}
    with pytest.raises(InputError, match=r"--classes dgo: there is no such class; did you mean 'dog'\?"):
        find_classes(["dgo"], ["cat", "dog"])


def test_classes_are_filtered(run, folder, weights, tmp_path):
    run("--input", folder, *ALL, "--classes", "Star", "disc", opts=weights)
    results = json.loads((tmp_path / "drawn" / "coco_instances_results.json").read_text())
    assert {row["category_id"] for row in results} <= {1, 3}


def test_a_video_becomes_a_video_that_browsers_play(run, clip, weights, tmp_path):
    summary = run("--input", clip, *ALL, "--batch-size", "8", opts=weights)
    (path,) = summary.written
    assert (path.name, summary.num_images) == ("clip.mp4", 50)
    frames, fps = read_video(path)
    assert len(frames) == 50
    assert fps == pytest.approx(10, rel=0.01)
    assert frames[0].shape == (420, 540, 3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration / 1e6 == pytest.approx(5, abs=0.15)
    images = json.loads((tmp_path / "drawn" / "images.json").read_text())["images"]
    assert [images[0]["file_name"], images[49]["frame"]] == ["clip.avi#0", 49]
    few = run("--video-input", clip, "--num-images", "3", opts=weights, output="one.mp4")
    assert (few.num_images, len(read_video(few.written[0])[0])) == (3, 3)


def test_a_single_input_can_go_to_a_file(run, folder, weights, tmp_path):
    summary = run("--input", folder / "a.jpg", opts=weights, output="one.jpg")
    assert summary.written == [tmp_path / "one.jpg"]
    assert cv2.imread(str(tmp_path / "one.jpg")).shape == (420, 540, 3)
    with pytest.raises(InputError, match="a file is for a single image or video; give a folder"):
        run("--input", folder, opts=weights, output="one.jpg")


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        is_read, frame = capture.read()
        if not is_read:
            return frames, fps
        frames.append(frame)


@pytest.fixture
def camera(monkeypatch, clip):
    """A camera, number 0, that shows the clip."""
    capture = cv2.VideoCapture
    monkeypatch.setattr(inputs.cv2, "VideoCapture", lambda source: capture(str(clip) if source == 0 else source))


@pytest.mark.usefixtures("camera")
def test_a_camera_is_written_to_a_file_where_there_is_no_screen(run, weights, monkeypatch):
    monkeypatch.setattr(live, "why_no_window", lambda: "there is no screen")
    summary = run("--webcam", "--num-images", "4", opts=weights)
    assert [path.name for path in summary.written] == ["webcam.mp4"]
    assert len(read_video(summary.written[0])[0]) == 4


@pytest.mark.usefixtures("camera")
def test_without_a_screen_a_window_is_an_error(run, folder, weights, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(window.cv2, "currentUIFramework", lambda: "QT5", raising=False)
    for source in (["--webcam"], ["--input", folder]):
        with pytest.raises(InputError, match=r"DISPLAY is not set.*: give --output to write files"):
            run(*source, opts=weights, output=None)
    monkeypatch.setattr(window.cv2, "currentUIFramework", lambda: "", raising=False)
    with pytest.raises(InputError, match="opencv-python-headless"):
        run("--webcam", opts=weights, output=None)


@pytest.fixture
def screen(monkeypatch):
    """A stand-in for OpenCV's window: the sizes of the pictures shown, and the keys that are pressed."""
    screen = SimpleNamespace(keys=iter(()), shown=[])
    monkeypatch.setattr(window, "why_no_window", lambda: "")
    monkeypatch.setattr(window.cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(window.cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(window.cv2, "imshow", lambda _, picture: screen.shown.append(picture.shape))
    monkeypatch.setattr(window.cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(window.cv2, "waitKey", lambda _: next(screen.keys))
    return screen


@pytest.mark.usefixtures("camera")
def test_a_window_shows_pictures_until_q(run, folder, weights, screen):
    screen.keys = iter([ord("x"), ord("q"), 255, 27])
    assert run("--input", folder, opts=weights, output=None).num_images == 2
    assert run("--webcam", opts=weights, output=None).num_images == 2
    assert screen.shown == [(420, 540, 3)] * 4


def test_a_window_passes_over_what_cannot_be_read(run, folder, weights, screen):
    for name in ("b.png", "v.mp4"):
        (folder / name).write_bytes(b"nothing")
    screen.keys = iter([255, 255])
    summary = run("--input", folder, opts=weights, output=None)
    assert summary.num_images == len(screen.shown) == 2
    assert [path.name for path in summary.unreadable] == ["b.png", "v.mp4"]


def test_no_camera_is_an_error(run, weights):
    with pytest.raises(InputError, match="--webcam 97: no camera of this number can be opened"):
        run("--webcam", "97", opts=weights)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to show"),
        (
            ["--exported", "a", "--dataset", "b"],
            "--exported goes with .*, and not with --config-file, .*--dataset",
        ),
        (["--input", "x", "--dataset", "y"], "--dataset stands alone or with --results"),
        (["--results", "x", "--annotations", "y"], "--annotations and --images go together"),
        (["--input", "x", "--annotations", "y", "--images", "z"], "--annotations goes with --results"),
        (["--dataset", "x", "--features"], "--features needs --input"),
        (["--input", "x", "--error-type", "loc"], "--error-type goes with --results"),
        (["--input", "x", "--batch-size", "0"], "--batch-size 0: at least 1"),
    ],
)
def test_flags_that_make_no_sense(run, args, message):
    with pytest.raises(InputError, match=message):
        run(*args)


@pytest.fixture
def far_from_the_data(weights, request):
    """The config of a run whose data are not here, without and with the names that training keeps in it."""

    def make(**classes):
        cfg = get_cfg()
        add_resnet_det_config(cfg)
        cfg.merge_from_file(str(request.config.rootpath / "configs/demo/mask_rcnn_R_18_FPN.yaml"))
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("gone_train",), ("gone_val",)
        cfg.RESNET_DET.DATA.COCO = [["gone_train", "/gone/a.json", "/gone"], ["gone_val", "/gone/b.json", "/gone"]]
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(weights[1])
        for key, value in classes.items():
            cfg.RESNET_DET.CLASSES[key] = value
        return cfg

    return make


def test_names_are_kept_where_the_data_are_not(far_from_the_data, caplog):
    count = far_from_the_data().MODEL.ROI_HEADS.NUM_CLASSES
    names = [f"kind {number}" for number in range(count)]
    limbs = [["nose", "tail", [255, 0, 0]]]
    cfg = far_from_the_data(NAMES=names, IDS=list(range(10, 10 + count)), KEYPOINTS=["nose", "tail"], LIMBS=limbs)
    predictor = Predictor(cfg)
    assert (predictor.class_names, predictor.category_ids[:2]) == (names, [10, 11])
    assert (predictor.skeleton.limbs, predictor.skeleton.colours) == (((0, 1),), ((0, 0, 255),))
    assert not caplog.records
    with caplog.at_level("WARNING", logger="resnet_det"):
        assert Predictor(far_from_the_data()).class_names[0] == "class 0"
    assert "The classes have no names: none of the data sets gone_val, gone_train is here" in caplog.text


def test_panoptic_segments_are_drawn_and_named(default_cfg, folder, tmp_path, request, monkeypatch):
    default_cfg.merge_from_file(
        str(request.config.rootpath / "configs/COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")
    )
    default_cfg.merge_from_list(["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    default_cfg.MODEL.DEVICE, default_cfg.INPUT.MIN_SIZE_TEST, default_cfg.MODEL.WEIGHTS = "cpu", 64, ""
    model = build_model(default_cfg)
    path = tmp_path / "panoptic.pth"
    torch.save({"model": model.state_dict()}, path)
    default_cfg.MODEL.WEIGHTS = str(path)
    predictor = Predictor(default_cfg)
    segments = torch.zeros(70, 90, dtype=torch.int32)
    segments[:30], segments[30:, :40] = 1, 2
    described = [
        {"id": 1, "isthing": False, "category_id": 40},
        {"id": 2, "isthing": True, "category_id": 16, "instance_id": 0, "score": 0.9},
    ]
    output = {"instances": make_instances()[:0], "panoptic_seg": (segments, described)}
    assert set(predictor.run([np.zeros((70, 90, 3), np.uint8)])[0]) >= {"panoptic_seg", "instances"}
    monkeypatch.setattr(predictor, "run", lambda images: [output for _ in images])
    image = cv2.imread(str(folder / "a.jpg"))
    draw_inputs(predictor, [folder / "a.jpg"], [], tmp_path / "p", shown=Filter(0.0), batch_size=1)
    picture = cv2.imread(str(tmp_path / "p" / "a.png"))
    assert np.abs(picture[60:, 60:].astype(int) - image[60:, 60:]).max() == 0, "no segment"
    assert (picture[2, 2] != image[2, 2]).any()
    page = (tmp_path / "p" / "gallery.html").read_text()
    assert f"1 {predictor.stuff_names[40]}, 1 dog" in page
