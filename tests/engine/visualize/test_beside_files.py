"""Pictures beside files of somebody else's, which stay as they are."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from resnet_det.errors import InputError


def hashes(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", ["gallery.html", "coco_instances_results.json", "images.json", "thumbnails/a.jpg"])
def test_a_folder_with_files_of_these_names_is_refused_and_left(run, folder, weights, there):
    (folder / there).parent.mkdir(exist_ok=True)
    (folder / there).write_text("mine")
    before = hashes(folder)
    with pytest.raises(InputError, match=r"is there already and stays as it is; name another"):
        run("--input", folder / "a.jpg", output="photos", opts=weights)
    assert hashes(folder) == before


def test_pictures_and_videos_beside_their_inputs_get_other_names(run, folder, clip, weights):
    shutil.copy(clip, folder / "clip.mp4")
    before = hashes(folder)
    summary = run("--input", folder, "--num-images", "2", output="photos", opts=weights)
    assert [path.name for path in summary.written] == ["a.png", "b-2.png", "clip-2.mp4"]
    assert {path: text for path, text in hashes(folder).items() if path in before} == before


@pytest.mark.parametrize("target", ["b.png", "notes.txt"])
def test_a_single_picture_does_not_replace_a_file(run, folder, weights, target):
    before = hashes(folder)
    with pytest.raises(InputError):
        run("--input", folder / "a.jpg", output=f"photos/{target}", opts=weights)
    assert hashes(folder) == before
