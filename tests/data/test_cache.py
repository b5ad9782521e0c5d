"""Decoded faces on disk: used, made again when damaged, done without where there is no room for them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from made_folders import write_people

from ffem_jax.data import cache, load_faces
from ffem_jax.spec import DataSpec


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
        "from ffem_jax.spec import DataSpec\nfrom ffem_jax.data import load_faces\n"
        f"print(load_faces(DataSpec(**{dataclasses.asdict(spec)!r})).fingerprint)"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0] for process in started}
    assert prints == {load_faces(spec).fingerprint + "\n"}
    assert len(cached_files(spec)) == 1
