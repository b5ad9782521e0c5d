"""Batches come in their order, by threads and by other processes, and whoever fails or ends is named."""

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
from made_sets import (
    draw_faces,
    encode,
    load_packed,
    make_contents,
    write_recordio,
    write_records,
)
from PIL import Image

from ffem_jax.data import source as source_module
from ffem_jax.data.read_ahead import StreamError, choose_loading, read_batches


@pytest.fixture(autouse=True)
def _nothing_is_open() -> Iterator[None]:
    yield
    source_module._streamed.clear()


def test_batches_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    pixels, _ = write_recordio(tmp_path)
    places = np.random.default_rng(0).integers(0, 12, (9, 2, 3))
    for images in (load_packed(tmp_path, "stream").images, pixels):
        found = list(read_batches(images, places))
        np.testing.assert_array_equal(found, pixels[places])


def test_a_record_that_breaks_in_the_middle_is_named_when_its_batch_is_due(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    faces = load_packed(tmp_path, "stream")
    with open(tmp_path / "train.rec", "r+b") as file:
        file.seek(starts[8])
        file.write(b"oops")
    batches = read_batches(faces.images, np.arange(12).reshape(6, 2))
    for place in range(3):
        np.testing.assert_array_equal(next(batches), pixels[2 * place : 2 * place + 2])
    with pytest.raises(StreamError, match=r"image 7 of data=recordio \(1/00000008\) can no longer be read"):
        next(batches)


@pytest.mark.slow
def test_other_processes_read_the_same_batches_and_name_what_breaks(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    faces = load_packed(tmp_path, "stream")
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
            found.append(
                load_packed(tmp_path, mode, processes, cache_dir=str(tmp_path / f"{mode}-{processes}"), **settings)
            )
            source_module._streamed.clear()
        alone, together = found
        assert (together.names, together.content, together.notes) == (alone.names, alone.content, alone.notes)
        assert together.fingerprint == alone.fingerprint
        np.testing.assert_array_equal(together.images[:], alone.images[:])


@pytest.mark.slow
def test_a_process_that_is_killed_is_named(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    faces = load_packed(tmp_path, "stream")
    with choose_loading("stream", 2):
        batches = read_batches(faces.images, np.arange(12).repeat(100).reshape(300, 4))
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(StreamError, match=r"a decoding process has failed \(RuntimeError: .*exit code -9"):
            list(batches)
    assert not multiprocessing.active_children()


UNGUARDED = """
import sys
import numpy as np
from pathlib import Path
from made_sets import load_packed
from ffem_jax.data.read_ahead import choose_loading, read_batches

with choose_loading("stream", 2):
    next(read_batches(load_packed(Path(sys.argv[1]), "stream").images, np.zeros((1000, 300), int)))
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
    assert "StreamError: a decoding process has failed" in done.stderr


def read_in_a_worker(root: Path) -> int:
    with choose_loading("stream", 1):
        return sum(len(batch) for batch in read_batches(load_packed(root, "stream").images, np.zeros((3, 40_000), int)))


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
from made_sets import load_packed
from ffem_jax.data.read_ahead import choose_loading, read_batches

if __name__ == "__main__":
    with choose_loading("stream", 2):
        batches = read_batches(load_packed(Path(sys.argv[1]), "stream").images, np.zeros((1000, 100), int))
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
    images = load_packed(tmp_path, "stream").images

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StreamError, match="Input/output error"):
        next(read_batches(images, np.arange(4)[None]))


def test_without_grain_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(StreamError, match=r"Grain, which is not installed; .*\[stream\]"):
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
