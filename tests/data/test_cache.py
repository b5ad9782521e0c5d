"""Decoded faces on disk: used, made again when damaged, done without where there is no room for them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_folders import make_picture, write_people
from PIL import Image

from ffem_jax import data
from ffem_jax.data import Faces, cache
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.specs.trial import DataSpec


def load_faces(spec: DataSpec) -> Faces:
    """As a new process does: with nothing in memory."""
    cache._recent.clear()
    return data.load_faces(spec)


@pytest.fixture
def spec(tmp_path) -> DataSpec:
    root = write_people(tmp_path / "faces", {"ann": 3, "bob": 3})
    return DataSpec(name="folder", root=str(root), resolution=16, cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the pictures decoded so far."""
    from ffem_jax.data import folder

    names = []
    real = folder.decode_faces

    def spy(pictures, total, spec):
        names.extend(picture.name for picture in pictures)
        return real(pictures, total, spec)

    monkeypatch.setattr(folder, "decode_faces", spy)
    return names


def cached_files(spec: DataSpec) -> list[str]:
    return sorted(name for name in os.listdir(spec.cache_dir) if name.endswith(".npz"))


def test_the_second_time_nothing_is_decoded(spec, decoded):
    first = load_faces(spec)
    assert len(decoded) == 6
    second = load_faces(spec)
    assert len(decoded) == 6
    assert first.fingerprint == second.fingerprint
    assert len(cached_files(spec)) == 1


@pytest.mark.parametrize(
    "field", [{"resolution": 17}, {"crop": 0.5}, {"people": 2}, {"max_images": 2}, {"min_images": 3}]
)
def test_a_spec_that_selects_otherwise_has_a_file_of_its_own(spec, decoded, field):
    load_faces(spec)
    load_faces(dataclasses.replace(spec, **field))
    assert len(decoded) == 12
    assert len(cached_files(spec)) == 2


def test_what_decides_nothing_for_photographs_is_not_in_the_key(spec, decoded):
    load_faces(spec)
    load_faces(dataclasses.replace(spec, seed=7, difficulty=2.0, images_per_person=9))
    assert len(decoded) == 6


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-50], lambda data: b"x" * 999, "flip"])
def test_a_damaged_file_is_made_again(spec, decoded, damage):
    first = load_faces(spec)
    path = os.path.join(spec.cache_dir, cached_files(spec)[0])
    with open(path, "rb") as file:
        data = file.read()
    if damage == "flip":
        middle = data.find(first.images.tobytes()[:64]) + 100
        damaged = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    else:
        damaged = damage(data)
    with open(path, "wb") as file:
        file.write(damaged)
    assert load_faces(spec).fingerprint == first.fingerprint
    assert len(decoded) == 12
    load_faces(spec)
    assert len(decoded) == 12


def test_without_a_writable_folder_a_note_says_so(spec, decoded, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = dataclasses.replace(spec, cache_dir=str(tmp_path / "file" / "cache"))
    faces = load_faces(blocked)
    assert faces.fingerprint == load_faces(spec).fingerprint
    assert "cannot be written" in faces.notes[-1]
    assert "data.cache_dir" in faces.notes[-1]


def test_a_full_disk_leaves_no_half_file(spec, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", fail)
    faces = load_faces(spec)
    assert "No space left" in faces.notes[-1]
    assert [name for name in os.listdir(spec.cache_dir) if not name.endswith(".lock")] == []


def test_the_spec_goes_before_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FFEM_CACHE_DIR", str(tmp_path / "environment"))
    assert cache.find_cache_folder(DataSpec()) == tmp_path / "environment"
    assert cache.find_cache_folder(DataSpec(cache_dir=str(tmp_path / "spec"))) == tmp_path / "spec"
    monkeypatch.delenv("FFEM_CACHE_DIR")
    assert cache.find_cache_folder(DataSpec()).name == "ffem_jax"


def test_two_processes_at_once_agree(spec):
    program = (
        "from ffem_jax.specs.trial import DataSpec\nfrom ffem_jax.data import load_faces\n"
        f"print(load_faces(DataSpec(**{dataclasses.asdict(spec)!r})).fingerprint)"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0] for process in started}
    assert prints == {load_faces(spec).fingerprint + "\n"}
    assert len(cached_files(spec)) == 1


# ------------------------------------------------------------------------- files of equal size and time

ARCHIVE_TIME = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def twins(tmp_path) -> DataSpec:
    """A folder as an archive leaves it: every file of one size and one time."""
    for seed, name in enumerate(["ann/1.pgm", "ann/2.pgm", "bob/1.pgm", "bob/2.pgm"]):
        path = tmp_path / "twins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(seed, (16, 16)).convert("L").save(path)
        os.utime(path, ns=ARCHIVE_TIME)
    return DataSpec(name="folder", root=str(tmp_path / "twins"), resolution=16, min_images=1)


def exchange_by_renaming(first: Path, second: Path) -> None:
    first.rename(first.with_name("third"))
    second.rename(first)
    first.with_name("third").rename(second)


def exchange_by_writing(first: Path, second: Path) -> None:
    contents = first.read_bytes(), second.read_bytes()
    for path, content in zip((second, first), contents, strict=True):
        path.write_bytes(content)  # the same inode
        os.utime(path, ns=ARCHIVE_TIME)


def exchange_by_copying(first: Path, second: Path) -> None:
    """As `rsync -a` and `cp -a` do: a new file with the old times, renamed to its place."""
    for path, other in ((first, second), (second, first)):
        shutil.copy2(other, path.with_suffix(f".{path.parent.name}"))
    for path in (first, second):
        path.with_suffix(f".{path.parent.name}").replace(path)


def exchange_by_linking(first: Path, second: Path) -> None:
    for path, other in ((first, second), (second, first)):
        path.rename(path.with_suffix(".kept"))
        path.symlink_to(other.with_suffix(".kept"))


@pytest.mark.parametrize(
    "exchange", [exchange_by_renaming, exchange_by_writing, exchange_by_copying, exchange_by_linking]
)
def test_exchanged_pictures_of_equal_size_and_time_are_seen(twins, exchange):
    before = load_faces(twins)
    root = Path(twins.root)
    exchange(root / "ann" / "1.pgm", root / "bob" / "1.pgm")
    assert {os.stat(path).st_mtime_ns for path in root.glob("*/*.pgm")} == {ARCHIVE_TIME[0]}
    after = load_faces(twins)
    assert after.content == tuple(before.content[index] for index in (2, 1, 0, 3))
    assert after.fingerprint != before.fingerprint


def test_a_process_shares_faces_until_their_source_changes(twins):
    before = data.load_faces(twins)
    assert data.load_faces(twins).images is before.images
    first, second = (Path(twins.root) / name for name in ("ann/1.pgm", "bob/1.pgm"))
    exchange_by_renaming(first, second)
    assert data.load_faces(twins).content == tuple(before.content[index] for index in (2, 1, 0, 3))


def test_a_link_that_leads_elsewhere_is_seen(twins, tmp_path):
    root = Path(twins.root)
    shutil.move(root / "ann", tmp_path / "old")
    (root / "ann").symlink_to(tmp_path / "old")
    before = load_faces(twins)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    exchange_by_copying(tmp_path / "new" / "1.pgm", tmp_path / "new" / "2.pgm")
    (root / "ann").unlink()
    (root / "ann").symlink_to(tmp_path / "new")
    assert load_faces(twins).content[:2] == before.content[1::-1]


def test_what_another_release_kept_is_not_trusted(spec, monkeypatch):
    monkeypatch.setattr(cache, "CACHE_VERSION", 1)  # it knew files by size and time alone
    load_faces(spec)
    monkeypatch.undo()
    assert cache.CACHE_VERSION > 1
    load_faces(spec)
    assert len(cached_files(spec)) == 2


def test_pictures_that_change_while_they_are_read_are_not_kept(spec, monkeypatch):
    path = Path(spec.root) / "bob" / "bob_0003.jpg"
    real = cache.np.empty  # the first thing that decoding does
    calls = []

    def change(*words, **options):
        if not calls:
            calls.append(1)
            make_picture(99, (40, 40)).save(path)
        return real(*words, **options)

    with monkeypatch.context() as patch:
        patch.setattr("ffem_jax.data.decode.np.empty", change)
        faces = load_faces(spec)
    assert calls
    assert "changed while they were read" in faces.notes[-1]
    assert cached_files(spec) == []
    assert load_faces(spec).notes == ()


# ------------------------------------------------------------------------------- a failure that passes


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        PermissionError(13, "Permission denied"),
        OSError(116, "Stale file handle"),
        FileNotFoundError(2, "No such file or directory"),
        MemoryError(),
    ],
    ids=lambda error: getattr(error, "strerror", None) or "memory",
)
def test_a_picture_that_cannot_be_read_now_is_named_and_tried_again(spec, monkeypatch, error):
    real = Path.read_bytes
    told = getattr(error, "strerror", None) or "MemoryError"

    def fail(path):
        if path.name == "ann_0002.jpg":
            raise error
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        faces = load_faces(spec)
    assert faces.names[:2] == ("ann/ann_0001.jpg", "ann/ann_0003.jpg")
    assert faces.unread == ("ann/ann_0002.jpg",)
    assert faces.notes == (
        f"could not be read this time (1): ann/ann_0002.jpg ({told}); they will be tried again next time",
    )
    assert cached_files(spec) == []
    whole = load_faces(spec)
    assert (len(whole.names), whole.notes, whole.unread) == (6, (), ())
    np.testing.assert_array_equal(whole.images[1], crop_face(Image.open(Path(spec.root) / "ann/ann_0002.jpg"), 1.0, 16))


def test_a_broken_picture_is_a_property_until_it_changes(spec, decoded):
    path = Path(spec.root) / "ann" / "ann_0002.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])  # a download on its way
    assert "skipped ann/ann_0002.jpg" in load_faces(spec).notes[0]
    assert "skipped ann/ann_0002.jpg" in load_faces(spec).notes[0]
    assert len(decoded) == 6
    path.write_bytes(whole)
    assert load_faces(spec).notes == ()


def test_other_decoders_decode_anew(spec, decoded, monkeypatch):
    load_faces(spec)
    monkeypatch.setattr(cache.features, "version", lambda codec: None if codec == "webp" else "1")
    load_faces(spec)
    assert len(decoded) == 12


# Settings that change no decoded face of a folder, and why.
ELSEWHERE = {
    "root": "the state of the files has their paths",
    "cache_dir": "where the cache is",
    "files": "the state of the files names those that are read",
    **dict.fromkeys(("builder", "split", "image_field", "label_field"), "part of the state that load_source gives"),
    **dict.fromkeys(("images_per_person", "difficulty", "seed"), "of drawn faces, which are not kept"),
    "images_per_epoch": "read by training alone",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DataSpec) if field.name not in ELSEWHERE])
def test_whatever_changes_decoded_faces_is_in_the_key(name: str) -> None:
    spec = DataSpec(name="folder")
    other = {"name": "lfw", "fit": "pad", "crop": 0.5, "unlabelled": "album"}.get(name) or getattr(spec, name) + 8
    assert cache._hash_key(dataclasses.replace(spec, **{name: other}), []) != cache._hash_key(spec, [])
