"""Faces from arrays: a folder that gives back the very pixels, and nothing that is wrong passes in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffem_jax.data import DataError, load_faces
from ffem_jax.data.arrays import faces_from_arrays
from ffem_jax.specs.fields import SpecError


def draw(count: int = 8, side: int = 16, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_pixels_people_and_labels_come_back(tmp_path: Path) -> None:
    images, labels, people = draw(), np.array([1, 0, 1, 0, 1, 0, 1, 0]), ["zoé", "Ada B."]
    data = faces_from_arrays(images, labels, people, folder=tmp_path / "faces")
    faces = load_faces(data)
    assert (faces.people, data.resolution) == (("Ada B.", "zoé"), 16)
    for person, label in (("Ada B.", 1), ("zoé", 0)):
        own = faces.labels == faces.people.index(person)
        assert np.array_equal(faces.images[own], images[labels == label])


def test_grey_images_several_sizes_and_names_as_labels(tmp_path: Path) -> None:
    grey = draw()[:, :, :, 0]
    faces = load_faces(faces_from_arrays(grey, ["a", "b"] * 4, folder=tmp_path / "grey"))
    assert np.array_equal(faces.images[0], np.repeat(grey[0][:, :, None], 3, axis=2))
    again = load_faces(faces_from_arrays(grey[..., None], ["a", "b"] * 4, folder=tmp_path / "grey"))
    assert again.fingerprint == faces.fingerprint
    mixed = [draw(1, 20 + number)[0] for number in range(8)]
    data = faces_from_arrays(mixed, ["a", "b"] * 4, folder=tmp_path / "mixed", resolution=24)
    assert load_faces(data).images.shape == (8, 24, 24, 3)


def test_people_without_names_stay_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    labels = np.repeat([2, 10, 1], 4)
    faces = load_faces(faces_from_arrays(draw(12), labels, folder=tmp_path / "faces"))
    assert faces.people == ("01", "02", "10")


def test_people_with_too_few_images_are_named(tmp_path: Path) -> None:
    faces = load_faces(faces_from_arrays(draw(9), ["a", "b"] * 4 + ["c"], folder=tmp_path / "faces"))
    assert faces.people == ("a", "b")
    assert any("c" in note and "1" in note for note in faces.notes)
    assert len(load_faces(faces_from_arrays(draw(9), ["a", "b"] * 4 + ["c"], folder=tmp_path / "faces",
                                            min_images=1)).people) == 3  # fmt: skip


def test_the_same_arrays_are_found_again_and_others_are_not_taken_for_them(tmp_path: Path) -> None:
    labels = ["a", "b"] * 4
    first = faces_from_arrays(draw(), labels, folder=tmp_path / "faces")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*.png")}
    assert faces_from_arrays(draw(), labels, folder=tmp_path / "faces") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*.png")} == times
    for images, owners in ((draw(seed=1), labels), (draw(), labels[::-1]), (draw(6), labels[:6])):
        with pytest.raises(DataError, match="exists and contains files other than these"):
            faces_from_arrays(images, owners, folder=tmp_path / "faces")
    assert list(tmp_path.iterdir()) == [tmp_path / "faces"]


def test_without_a_folder_each_content_has_one_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFEM_CACHE_DIR", str(tmp_path))
    roots = [faces_from_arrays(draw(seed=seed), ["a", "b"] * 4).root for seed in (0, 1, 0)]
    assert roots[0] == roots[2] != roots[1]
    assert all(Path(root).is_relative_to(tmp_path) for root in roots)


def test_half_a_folder_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); give another folder=DIR"):
            faces_from_arrays(draw(), ["a", "b"] * 4, folder=tmp_path / "faces")
    assert list(tmp_path.iterdir()) == []


IMAGES, LABELS = draw(), [0, 1] * 4


@pytest.mark.parametrize(
    ("images", "labels", "people", "message"),
    [
        (IMAGES / 255, LABELS, None, "image 0 is float64; images must be uint8 from 0 to 255"),
        (IMAGES.astype(np.int64), LABELS, None, "image 0 is int64"),
        (IMAGES // 200, LABELS, None, "no pixel of any image is over 1"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, None, r"image 0 has shape \[3, 16, 16\]; it must be \[H, W, 3\]"),
        (IMAGES[:, :, :3], LABELS, None, "image 0 has 16 x 3 pixels"),
        (IMAGES[0], [0] * 16, None, "image 0 has 16 x 3 pixels"),
        (draw(8, 8), LABELS, None, "image 0 has 8 x 8 pixels; a face needs 16 x 16"),
        (IMAGES[:0], [], None, "there is no image"),
        (3, LABELS, None, "images is int"),
        ([*IMAGES[:7], draw(1, 20)[0]], LABELS, None, "sides of 16 to 20 pixels; give the resolution"),
        (draw(4, 520), [0, 1] * 2, None, "give resolution=R of at most 512"),
        (IMAGES, LABELS[:7], None, r"labels has the shape \[7\], and there are 8 images"),
        (IMAGES, np.eye(8), None, r"labels has the shape \[8, 8\]"),
        (IMAGES, [0.0, 1.0] * 4, None, "labels are float64; give whole numbers, or people's names"),
        (IMAGES, [True, False] * 4, ["a", "b"], "labels are bool"),
        (IMAGES, [1, 2] * 4, ["a", "b"], "label 2 is not an index into the 2 people; labels start at 0"),
        (IMAGES, [0, -1] * 4, ["a", "b"], "label -1 is not an index"),
        (IMAGES, ["a", "b"] * 4, ["a", "b"], "together with `people` they must be indices"),
        (IMAGES, LABELS, ["ann", "ann"], "2 people have the same name: 'ann' and 'ann'"),
        (IMAGES, LABELS, ["ann", "ann "], "2 people have the same name: 'ann' and 'ann '"),
        (IMAGES, LABELS, ["ann", "a/b"], "'a/b' is not valid as a person's name"),
        (IMAGES, LABELS, ["ann", ".."], "is not valid as a person's name"),
        (IMAGES, LABELS, ["ann", " "], "' ' is not valid as a person's name"),
        (IMAGES, LABELS, ["ann", "é" * 128], "is not valid as a person's name"),
        (IMAGES, LABELS, ["ann", "\ud800"], "is not valid as a person's name"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    tmp_path: Path, images: Any, labels: Any, people: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        faces_from_arrays(images, labels, people, folder=tmp_path / "faces")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_resolution_out_of_bounds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.resolution"):
        faces_from_arrays(IMAGES, LABELS, folder=tmp_path / "faces", resolution=8)
    assert list(tmp_path.iterdir()) == []
