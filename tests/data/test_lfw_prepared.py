"""The prepared files of Labeled Faces in the Wild: made once, and again where a picture changed or they are damaged."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_folders import make_picture, write_people
from made_lfw import PEOPLE, spec_of

from ffem_jax.data import DataError, lfw, load_faces


def prepared_records(cache: Path) -> list[Path]:
    return sorted(cache.glob("lfw-*/faces_in_the_wild/*/*.array_record*"))


def test_it_is_prepared_once_for_all_resolutions(tmp_path, monkeypatch):
    write_people(tmp_path / "lfw", PEOPLE)
    cache = tmp_path / "cache"
    load_faces(spec_of(tmp_path, cache_dir=str(cache)))
    assert len(prepared_records(cache)) == 1
    monkeypatch.setattr(lfw, "read_folder", lambda folder: pytest.fail("prepared again"))
    assert load_faces(spec_of(tmp_path, cache_dir=str(cache), resolution=20)).images.shape == (11, 20, 20, 3)


def test_two_processes_at_once_prepare_it_once(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    cache = tmp_path / "cache"
    program = (
        "import sys\nfrom ffem_jax.specs.trial import DataSpec\nfrom ffem_jax.data import load_faces\n"
        f"spec = DataSpec(name='lfw', root={str(tmp_path)!r}, cache_dir={str(cache)!r}, resolution=int(sys.argv[1]))\n"
        "assert len(load_faces(spec).names) == 11\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, side]) for side in ("16", "20")]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert len(prepared_records(cache)) == 1
    assert len(list(cache.glob("*.npz"))) == 2


def test_a_changed_picture_is_prepared_again(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    before = load_faces(spec_of(tmp_path))
    make_picture(99).save(tmp_path / "lfw" / "Dan_Day" / "Dan_Day_0003.jpg")
    os.utime(tmp_path / "lfw" / "Dan_Day" / "Dan_Day_0003.jpg", ns=(1, 1))
    after = load_faces(spec_of(tmp_path))
    assert before.content[:-1] == after.content[:-1]
    assert before.content[-1] != after.content[-1]


@pytest.mark.parametrize("kept", [0, 0.5])
def test_damaged_prepared_files_are_made_again(tmp_path, kept):
    write_people(tmp_path / "lfw", PEOPLE)
    cache = tmp_path / "cache"
    first = load_faces(spec_of(tmp_path, cache_dir=str(cache)))
    record = prepared_records(cache)[0]
    record.write_bytes(record.read_bytes()[: int(kept * record.stat().st_size)])
    second = load_faces(spec_of(tmp_path, cache_dir=str(cache), max_images=9))
    assert second.fingerprint == first.fingerprint


def test_without_a_cache_it_works_and_leaves_nothing(tmp_path, monkeypatch):
    write_people(tmp_path / "lfw", PEOPLE)
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    faces = load_faces(spec_of(tmp_path, cache_dir=str(tmp_path / "file" / "cache")))
    assert len(faces.names) == 11
    assert "cannot be written" in faces.notes[-1]
    # TFDS itself forgets an empty folder of this ending each time a builder is made.
    assert [name for name in os.listdir(tmp_path / "temporary") if not name.endswith("tfds")] == []


def test_tensorflow_is_never_imported_and_nothing_is_printed(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    program = (
        "import sys\n"
        "from ffem_jax.specs.trial import DataSpec\nfrom ffem_jax.data import load_faces\n"
        f"spec = DataSpec(**{dataclasses.asdict(spec_of(tmp_path, cache_dir=str(tmp_path / 'cache')))!r})\n"
        "assert len(load_faces(spec).names) == 11\n"
        "assert 'tensorflow_datasets' in sys.modules\n"
        "assert not [name for name in sys.modules if name == 'tensorflow' or name.startswith('tensorflow.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_exchanged_pictures_of_equal_size_and_time_are_prepared_again(tmp_path):
    people = write_people(tmp_path / "lfw", PEOPLE)
    first, second = people / "Ann_Lee" / "Ann_Lee_0001.jpg", people / "Dan_Day" / "Dan_Day_0001.jpg"
    second.write_bytes(second.read_bytes().ljust(first.stat().st_size, b"\0"))
    first.write_bytes(first.read_bytes().ljust(second.stat().st_size, b"\0"))
    for path in (first, second):
        os.utime(path, ns=(1, 1))
    before = load_faces(spec_of(tmp_path))
    first.rename(people / "third")
    second.rename(first)
    (people / "third").rename(second)
    after = load_faces(spec_of(tmp_path))
    here, there = after.names.index("Ann_Lee/Ann_Lee_0001.jpg"), after.names.index("Dan_Day/Dan_Day_0001.jpg")
    assert (after.content[here], after.content[there]) == (before.content[there], before.content[here])


def test_a_picture_that_cannot_be_read_is_an_error_and_leaves_no_gap(tmp_path, monkeypatch):
    write_people(tmp_path / "lfw", PEOPLE)
    spec = spec_of(tmp_path, cache_dir=str(tmp_path / "cache"))
    real = Path.read_bytes

    def fail(path):
        if path.name == "Bob_Ray_0002.jpg":
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(DataError, match=r"Bob_Ray_0002.jpg cannot be read \(Input/output error\)"):
            load_faces(spec)
    assert len(load_faces(spec).names) == 11
