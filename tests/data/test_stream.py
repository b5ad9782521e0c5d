"""Faces that stay on the disk are the faces that memory would hold, and a file that changes meanwhile is named."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from made_folders import make_picture
from made_sets import draw_faces, encode, make_contents, pack_image, write_recordio, write_records, write_tar
from PIL import Image

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data import source as source_module
from ffem_jax.data.memory import TooLargeError
from ffem_jax.data.protocols import load_split
from ffem_jax.data.read_ahead import StreamError, choose_loading, read_batches
from ffem_jax.data.recordio import RecordSource
from ffem_jax.data.stream import StreamedImages
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.protocol import ProtocolSpec


def load(root: Path, mode: str, processes: int = 0, **settings: Any) -> Faces:
    spec = {
        "name": "recordio",
        "root": str(root),
        "resolution": 32,
        "min_images": 1,
        "cache_dir": str(root.parent / "cache"),
    }
    with choose_loading(mode, processes):
        return load_faces(DataSpec(**spec | settings))


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
    held, streamed = (load(tmp_path / "faces", mode, **where) for mode in ("memory", "stream"))
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
        load(tmp_path / "faces", "memory", **where)
    faces = load(tmp_path / "faces", "auto", **where)
    assert isinstance(faces.images, StreamedImages)
    first = tmp_path / "faces" / faces.names[0]
    first.write_bytes(encode(make_picture(77)))
    with pytest.raises(StreamError, match=r"ann/0.png\) has other pixels than when the set was looked through"):
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
    held, streamed = load(tmp_path, "memory", **settings), load(tmp_path, "stream", **settings)
    assert isinstance(streamed.images, StreamedImages)
    assert streamed.images.shape == held.images.shape
    np.testing.assert_array_equal(streamed.images[:], held.images)
    np.testing.assert_array_equal(streamed.labels, held.labels)
    assert (streamed.names, streamed.content, streamed.people) == (held.names, held.content, held.people)
    assert (streamed.fingerprint, streamed.pictures_fingerprint) == (held.fingerprint, held.pictures_fingerprint)
    assert streamed.notes[:-1] == held.notes
    assert "stay on the disk" in streamed.notes[-1]


def test_what_fits_is_held_and_what_does_not_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    assert isinstance(load(tmp_path, "auto").images, np.ndarray)
    monkeypatch.setattr("ffem_jax.data.memory.find_free_memory", lambda: 30_000)
    streamed = load(tmp_path, "auto", cache_dir=str(tmp_path / "other"))
    assert isinstance(streamed.images, StreamedImages)
    # The trials of a sweep share what is open.
    assert load(tmp_path, "auto", cache_dir=str(tmp_path / "other")) is streamed
    with pytest.raises(TooLargeError, match="12 images of 32 x 32 pixels take"):
        load(tmp_path, "memory", cache_dir=str(tmp_path / "other"))
    # Somebody who asks for all of them at once is told, and is not given a full memory.
    with pytest.raises(TooLargeError, match=r"data\.people"):
        streamed.images[:]
    assert streamed.images[np.arange(3)].shape == (3, 32, 32, 3)


def test_the_set_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    first = load(tmp_path, "stream")
    source_module._streamed.clear()
    monkeypatch.setattr("ffem_jax.data.source.decode_faces", None)
    again = load(tmp_path, "stream")
    assert again is not first
    assert again.fingerprint == first.fingerprint


def test_files_that_changed_are_looked_through_anew(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    first = load(tmp_path, "stream")
    pixels, labels = draw_faces(seed=1)
    write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    assert load(tmp_path, "stream").fingerprint != first.fingerprint
    assert load(tmp_path, "stream").fingerprint == load(tmp_path, "memory").fingerprint


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
    with pytest.raises(DataError, match="0 of the at least 2 people with data.min_images=9"):
        load(tmp_path, mode, min_images=9)


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    where, read, sick = {"name": "folder", "min_images": 2}, Path.read_bytes, [tmp_path / "faces" / "ann" / "0.png"]

    def fail(path: Path) -> bytes:
        if path in sick:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    first = load(tmp_path / "faces", "stream", **where)
    assert first.unread == ("ann/0.png",)
    sick.clear()
    again = load(tmp_path / "faces", "stream", **where)
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
    held, streamed = (load(tmp_path, mode, **where) for mode in ("memory", "stream"))
    assert "a/b/c" in held.names
    np.testing.assert_array_equal(streamed.images[:], held.images)


def test_batches_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    pixels, _ = write_recordio(tmp_path)
    places = np.random.default_rng(0).integers(0, 12, (9, 2, 3))
    for images in (load(tmp_path, "stream").images, pixels):
        found = list(read_batches(images, places))
        np.testing.assert_array_equal(found, pixels[places])


def test_a_record_that_breaks_in_the_middle_is_named_when_its_batch_is_due(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    faces = load(tmp_path, "stream")
    with open(tmp_path / "train.rec", "r+b") as file:
        file.seek(starts[8])
        file.write(b"oops")
    batches = read_batches(faces.images, np.arange(12).reshape(6, 2))
    for place in range(3):
        np.testing.assert_array_equal(next(batches), pixels[2 * place : 2 * place + 2])
    with pytest.raises(StreamError, match=r"image 7 of data=recordio \(1/00000008\) can no longer be read"):
        next(batches)


def test_other_pixels_under_the_same_name_are_found(tmp_path: Path) -> None:
    pixels, _ = write_recordio(tmp_path)
    faces = load(tmp_path, "stream")
    path = tmp_path / "train.rec"
    contents = make_contents([encode(one) for one in pixels[::-1]], faces.labels.tolist())
    path.unlink()  # the file that is open keeps its own bytes
    np.testing.assert_array_equal(faces.images[0], pixels[0])
    write_records(tmp_path, contents, 3)
    source = RecordSource(path)
    moved = StreamedImages(source.reader, source.addresses, faces.names, faces.content, DataSpec(resolution=32))
    with pytest.raises(StreamError, match=r"image 3 .* has other pixels than when the set was looked through"):
        moved[3]


@pytest.mark.slow
def test_other_processes_read_the_same_batches_and_name_what_breaks(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    faces = load(tmp_path, "stream")
    places = np.random.default_rng(0).integers(0, 12, (9, 2, 3))
    for processes in (1, 2, 20):  # more than there are batches
        with choose_loading("stream", processes):
            np.testing.assert_array_equal(list(read_batches(faces.images, places)), pixels[places])
    with open(tmp_path / "train.rec", "r+b") as file:
        file.seek(starts[8])
        file.write(b"oops")
    with choose_loading("stream", 2):
        batches = read_batches(faces.images, np.arange(12).reshape(6, 2))
        for place in range(3):
            np.testing.assert_array_equal(next(batches), pixels[2 * place : 2 * place + 2])
        with pytest.raises(StreamError, match=r"image 7 of data=recordio \(1/00000008\) can no longer be read"):
            next(batches)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"people": 2}, {"max_images": 1, "min_images": 3}])
def test_other_processes_look_through_a_set_as_this_one_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    pixels, labels = draw_faces()
    images = [encode(one) for one in pixels]
    images[5], images[7] = b"no picture", encode(Image.fromarray(pixels[7]).convert("CMYK"), "JPEG")
    write_records(tmp_path, make_contents(images, labels.tolist()))
    for mode in ("stream", "memory"):
        found = []
        for processes in (0, 2):
            found.append(load(tmp_path, mode, processes, cache_dir=str(tmp_path / f"{mode}-{processes}"), **settings))
            source_module._streamed.clear()
        alone, together = found
        assert (together.names, together.content, together.notes) == (alone.names, alone.content, alone.notes)
        assert together.fingerprint == alone.fingerprint
        np.testing.assert_array_equal(together.images[:], alone.images[:])


@pytest.mark.slow
def test_a_process_that_is_killed_is_named(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    faces = load(tmp_path, "stream")
    with choose_loading("stream", 2):
        batches = read_batches(faces.images, np.arange(12).repeat(100).reshape(300, 4))
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(StreamError, match=r"a process that decodes has failed \(RuntimeError: .*exit code -9"):
            list(batches)
    assert not multiprocessing.active_children()


UNGUARDED = """
import sys
import numpy as np
from pathlib import Path
from test_stream import load
from ffem_jax.data.read_ahead import choose_loading, read_batches

with choose_loading("stream", 2):
    next(read_batches(load(Path(sys.argv[1]), "stream").images, np.zeros((1000, 300), int)))
"""


@pytest.mark.slow
def test_a_process_that_dies_while_it_starts_leaves_nobody_waiting(tmp_path: Path) -> None:
    """A script that starts others where they are imported: what it hands over is larger than a pipe holds."""
    write_recordio(tmp_path)
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, str(tmp_path / "unguarded.py"), str(tmp_path)]
    done = subprocess.run(words, env=here, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "StreamError: a process that decodes has failed" in done.stderr


def read_in_a_worker(root: Path) -> int:
    with choose_loading("stream", 1):
        return sum(len(batch) for batch in read_batches(load(root, "stream").images, np.zeros((3, 40_000), int)))


@pytest.mark.slow
def test_a_worker_of_joblib_s_has_processes_of_its_own(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    (found,) = joblib.Parallel(2)([joblib.delayed(read_in_a_worker)(tmp_path)])
    assert found == 120_000


READER = """
import multiprocessing
import sys
import numpy as np
from pathlib import Path
from test_stream import load
from ffem_jax.data.read_ahead import choose_loading, read_batches

if __name__ == "__main__":
    with choose_loading("stream", 2):
        batches = read_batches(load(Path(sys.argv[1]), "stream").images, np.zeros((1000, 100), int))
        next(batches), next(batches)  # one of each
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        for batch in batches:
            pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_that_read_end_with_the_one_that_they_read_for(tmp_path: Path, how: signal.Signals) -> None:
    write_recordio(tmp_path)
    (tmp_path / "reader.py").write_text(READER)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    reader = subprocess.Popen(
        [sys.executable, tmp_path / "reader.py", tmp_path], env=here, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert reader.stdout is not None
    children = [int(word) for word in reader.stdout.readline().split()]
    assert len(children) == 2
    reader.send_signal(how)
    reader.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_disk_that_goes_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    images = load(tmp_path, "stream").images

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StreamError, match="Input/output error"):
        next(read_batches(images, np.arange(4)[None]))


def test_without_grain_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(StreamError, match=r"Grain, which is missing; .*\[stream\]"):
        next(read_batches(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 2), int)))


SLOW = """
import signal
import time
import numpy as np
from ffem_jax.data.read_ahead import read_batches

# Whoever started the tests may ignore it, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Slow:
    def __getitem__(self, index):
        print("reading", flush=True)
        time.sleep(0.5)
        return np.zeros((4, 4, 3), np.uint8)

for _ in read_batches(Slow(), np.zeros((20, 100), int)):
    pass
"""


def test_ctrl_c_waits_for_no_batch() -> None:
    child = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "reading\n"
    child.send_signal(signal.SIGINT)
    rest = child.communicate(timeout=25)[0]
    assert child.returncode != 0
    assert rest.count("reading") < 40


def test_one_person_alone_is_refused_as_in_memory(tmp_path: Path) -> None:
    pixels, _ = draw_faces(people=2)
    write_records(tmp_path, [pack_image(encode(one), 0.0) for one in pixels])
    for mode in ("memory", "stream"):
        with pytest.raises(DataError, match="1 of the at least 2 people"):
            load(tmp_path, mode)
