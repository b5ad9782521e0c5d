"""Faces that stay on disk are the faces that memory would hold, and a file that changes meanwhile is named."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_folders import make_picture
from made_sets import (
    draw_faces,
    encode,
    load_packed,
    make_contents,
    pack_image,
    write_recordio,
    write_records,
    write_tar,
)

from ffem_jax.data import DataError
from ffem_jax.data import source as source_module
from ffem_jax.data.memory import TooLargeError
from ffem_jax.data.protocols import load_split
from ffem_jax.data.read_ahead import StreamError, choose_loading
from ffem_jax.data.recordio import RecordSource
from ffem_jax.data.stream import StreamedImages
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.protocol import ProtocolSpec


@pytest.fixture(autouse=True)
def _nothing_is_open() -> Iterator[None]:
    yield
    source_module._streamed.clear()


def write_folder(root: Path) -> None:
    """Four people's folders: one has too few images, one an image that is no picture, two the same picture."""
    for index, person in enumerate(["ann", "bob", "cai", "dan"]):
        for number in range(1 if person == "cai" else 4):
            path = root / "faces" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(make_picture(0 if number == 3 else 10 * index + number)))
    (root / "faces" / "bob" / "9.jpg").write_bytes(b"no picture")
    (root / "faces" / "notes.txt").write_text("nothing")


@pytest.mark.parametrize(
    "settings", [{}, {"people": 2}, {"max_images": 2}, {"min_images": 2}, {"fit": "pad", "crop": 0.7}]
)
def test_a_streamed_folder_is_the_folder_in_memory(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_folder(tmp_path)
    (tmp_path / "faces" / "attributes.csv").write_text("path,age\nann/0.png,30\n")
    where = {"name": "folder", **settings}
    held, streamed = (load_packed(tmp_path / "faces", mode, **where) for mode in ("memory", "stream"))
    assert isinstance(streamed.images, StreamedImages)
    np.testing.assert_array_equal(streamed.images[:], held.images)
    np.testing.assert_array_equal(streamed.labels, held.labels)
    assert (streamed.names, streamed.content, streamed.people) == (held.names, held.content, held.people)
    assert (streamed.fingerprint, streamed.pictures_fingerprint) == (held.fingerprint, held.pictures_fingerprint)
    np.testing.assert_array_equal(streamed.attributes["age"], held.attributes["age"])
    said = [note for note in streamed.notes if not note.startswith("streamed: ")]
    assert said == list(held.notes)
    assert len(said) == len(streamed.notes) - 1


def test_a_folder_that_does_not_fit_is_streamed_and_a_changed_picture_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    where = {"name": "folder", "min_images": 2}
    monkeypatch.setattr("ffem_jax.data.memory.find_free_memory", lambda: 30_000)
    with pytest.raises(TooLargeError):
        load_packed(tmp_path / "faces", "memory", **where)
    faces = load_packed(tmp_path / "faces", "auto", **where)
    assert isinstance(faces.images, StreamedImages)
    first = tmp_path / "faces" / faces.names[0]
    first.write_bytes(encode(make_picture(77)))
    with pytest.raises(StreamError, match=r"ann/0.png\) has changed since the first scan of the set"):
        faces.images[0]
    first.unlink()
    with pytest.raises(StreamError, match=r"ann/0.png\) can no longer be read \(No such file"):
        faces.images[0]


def write_broken(root: Path) -> None:
    """Twelve images, one of them no picture: not all that the index promises can be read."""
    pixels, labels = draw_faces()
    images = [encode(one) for one in pixels]
    images[5] = b"no picture"
    write_records(root, make_contents(images, labels.tolist()))


@pytest.mark.parametrize(
    "settings", [{}, {"people": 2}, {"max_images": 2}, {"min_images": 4}, {"max_images": 1, "min_images": 3}]
)
@pytest.mark.parametrize("whole", [True, False])
def test_streamed_faces_are_those_in_memory(tmp_path: Path, whole: bool, settings: dict[str, Any]) -> None:
    write_recordio(tmp_path) if whole else write_broken(tmp_path)
    held, streamed = load_packed(tmp_path, "memory", **settings), load_packed(tmp_path, "stream", **settings)
    assert isinstance(streamed.images, StreamedImages)
    assert streamed.images.shape == held.images.shape
    np.testing.assert_array_equal(streamed.images[:], held.images)
    np.testing.assert_array_equal(streamed.labels, held.labels)
    assert (streamed.names, streamed.content, streamed.people) == (held.names, held.content, held.people)
    assert (streamed.fingerprint, streamed.pictures_fingerprint) == (held.fingerprint, held.pictures_fingerprint)
    assert streamed.notes[:-1] == held.notes
    assert "stay on disk" in streamed.notes[-1]


def test_what_fits_is_held_and_what_does_not_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    assert isinstance(load_packed(tmp_path, "auto").images, np.ndarray)
    monkeypatch.setattr("ffem_jax.data.memory.find_free_memory", lambda: 30_000)
    streamed = load_packed(tmp_path, "auto", cache_dir=str(tmp_path / "other"))
    assert isinstance(streamed.images, StreamedImages)
    # The trials of a sweep share what is open.
    assert load_packed(tmp_path, "auto", cache_dir=str(tmp_path / "other")) is streamed
    with pytest.raises(TooLargeError, match="12 images of 32 x 32 pixels need"):
        load_packed(tmp_path, "memory", cache_dir=str(tmp_path / "other"))
    # Somebody who asks for all of them at once is told, and is not given a full memory.
    with pytest.raises(TooLargeError, match=r"data\.people"):
        streamed.images[:]
    assert streamed.images[np.arange(3)].shape == (3, 32, 32, 3)


def test_the_set_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    first = load_packed(tmp_path, "stream")
    source_module._streamed.clear()
    monkeypatch.setattr("ffem_jax.data.source.decode_faces", None)
    again = load_packed(tmp_path, "stream")
    assert again is not first
    assert again.fingerprint == first.fingerprint


def test_files_that_changed_are_looked_through_anew(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    first = load_packed(tmp_path, "stream")
    pixels, labels = draw_faces(seed=1)
    write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    assert load_packed(tmp_path, "stream").fingerprint != first.fingerprint
    assert load_packed(tmp_path, "stream").fingerprint == load_packed(tmp_path, "memory").fingerprint


def test_protocols_split_streamed_faces_as_others(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    data = DataSpec(name="recordio", root=str(tmp_path), resolution=32, cache_dir=str(tmp_path / "cache"))
    splits = []
    for mode in ("memory", "stream"):
        with choose_loading(mode):
            splits.append(load_split(data, ProtocolSpec(test_per_person=1))[1])
    np.testing.assert_array_equal(splits[0].test, splits[1].test)
    np.testing.assert_array_equal(splits[0].train, splits[1].train)


@pytest.mark.parametrize("mode", ["memory", "stream"])
def test_what_nobody_is_left_of_is_one_line(tmp_path: Path, mode: str) -> None:
    write_recordio(tmp_path)
    with pytest.raises(DataError, match="0 of the required 2 people with data.min_images=9"):
        load_packed(tmp_path, mode, min_images=9)


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    where, read, sick = {"name": "folder", "min_images": 2}, Path.read_bytes, [tmp_path / "faces" / "ann" / "0.png"]

    def fail(path: Path) -> bytes:
        if path in sick:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    first = load_packed(tmp_path / "faces", "stream", **where)
    assert first.unread == ("ann/0.png",)
    sick.clear()
    again = load_packed(tmp_path / "faces", "stream", **where)
    assert again.unread == ()
    assert len(again.names) == len(first.names) + 1


def test_samples_of_one_name_keep_their_own_places(tmp_path: Path) -> None:
    """A name is not what an image is found by: here the first of two with one name is nobody's."""
    pixels, _ = draw_faces()
    images = [encode(one) for one in pixels]
    (tmp_path / "a").mkdir()
    write_tar(tmp_path / "a.tar", {"b/c.png": images[0], "b/c.cls": b"-1"})
    members = {}
    for number, image in enumerate(images[1:9]):
        key = "c" if number == 0 else f"{number}"
        members |= {f"{key}.png": image, f"{key}.cls": b"%d" % (number % 2)}
    write_tar(tmp_path / "a" / "b.tar", members)
    where = {"name": "webdataset", "files": "**/*.tar"}
    held, streamed = (load_packed(tmp_path, mode, **where) for mode in ("memory", "stream"))
    assert "a/b/c" in held.names
    np.testing.assert_array_equal(streamed.images[:], held.images)


def test_other_pixels_under_the_same_name_are_found(tmp_path: Path) -> None:
    pixels, _ = write_recordio(tmp_path)
    faces = load_packed(tmp_path, "stream")
    path = tmp_path / "train.rec"
    contents = make_contents([encode(one) for one in pixels[::-1]], faces.labels.tolist())
    path.unlink()  # the file that is open keeps its own bytes
    np.testing.assert_array_equal(faces.images[0], pixels[0])
    write_records(tmp_path, contents, 3)
    source = RecordSource(path)
    moved = StreamedImages(source.reader, source.addresses, faces.names, faces.content, DataSpec(resolution=32))
    with pytest.raises(StreamError, match=r"image 3 .* has changed since the first scan of the set"):
        moved[3]


def test_one_person_alone_is_refused_as_in_memory(tmp_path: Path) -> None:
    pixels, _ = draw_faces(people=2)
    write_records(tmp_path, [pack_image(encode(one), 0.0) for one in pixels])
    for mode in ("memory", "stream"):
        with pytest.raises(DataError, match="1 of the required 2 people"):
            load_packed(tmp_path, mode)
