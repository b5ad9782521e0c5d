"""What every data set keeps to, whichever it is: a new entry in DATA_SETS is tested the day it appears."""

from __future__ import annotations

import copy
import dataclasses
import gc
import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from made_folders import write_people
from made_sets import make_contents, write_records, write_tar

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data.folder import load as load_folder
from ffem_jax.data.read_ahead import choose_loading
from ffem_jax.specs.data import DATA_SETS, register_data_set
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.trial import DataSpec, to_plain


def list_encoded(people: Path) -> tuple[list[bytes], list[int]]:
    """The pictures of people's folders in order, and a number for each person."""
    folders = sorted(people.iterdir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    return [path.read_bytes() for path, _ in files], [label for _, label in files]


def pack_records(people: Path, root: Path) -> Path:
    images, labels = list_encoded(people)
    write_records(root, make_contents(images, labels))
    return root


def pack_tars(people: Path, root: Path) -> Path:
    images, labels = list_encoded(people)
    for first in (0, 6):
        rows = range(first, min(first + 6, len(images)))
        files = {f"{row:04d}.jpg": images[row] for row in rows} | {
            f"{row:04d}.cls": b"%d" % labels[row] for row in rows
        }
        write_tar(root / f"train-{first:03d}.tar", files)
    return root


def pack_tables(people: Path, root: Path) -> Path:
    images, labels = list_encoded(people)
    root.mkdir()
    for first in (0, 6):
        cells = [{"bytes": image, "path": None} for image in images[first : first + 6]]
        table = pyarrow.table({"image": cells, "label": labels[first : first + 6]})
        pyarrow.parquet.write_table(table, root / f"train-{first}.parquet")
    return root


class People(tfds.core.GeneratorBasedBuilder):
    """The pictures of people's folders."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    folder: Path

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": tfds.features.Scalar(np.int64)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for place, (image, label) in enumerate(zip(*list_encoded(self.folder), strict=True)):
            yield place, {"image": io.BytesIO(image), "label": label}


def prepare(people: Path, root: Path) -> Path:
    People.folder = people
    People(data_dir=root, file_format="array_record").download_and_prepare()
    return root


PACKED = {"recordio": pack_records, "webdataset": pack_tars, "parquet": pack_tables, "tfds": prepare}


@pytest.fixture
def registered():
    """Room for registrations that end with the test."""
    before = dict(DATA_SETS.kinds)
    yield
    DATA_SETS.kinds.clear()
    DATA_SETS.kinds.update(before)


# Those of the package, and one that somebody registered.
@pytest.fixture(params=[*DATA_SETS.names, "own_faces"])
def spec(request, tmp_path, registered) -> DataSpec:
    if request.param == "own_faces":
        register_data_set("own_faces", source="mine")(load_folder)
    people = {"Ann": 4, "Bob": 3, "Cy": 5}
    if request.param == "lfw_rest":
        people |= {f"Known_{number:02d}": 6 for number in range(52)}
    root = write_people(tmp_path / "faces" / "lfw", people)
    builder = "people" if request.param == "tfds" else ""
    if request.param in PACKED:
        root = PACKED[request.param](root, tmp_path / "packed")
    return DataSpec(
        name=request.param, root=str(root), resolution=24, min_images=2, images_per_person=3, builder=builder
    )


def assert_equal(left: Faces, right: Faces) -> None:
    for field in dataclasses.fields(Faces):
        if field.name not in ("images", "labels", "attributes"):
            assert getattr(left, field.name) == getattr(right, field.name), field.name
    np.testing.assert_array_equal(left.images, right.images)
    np.testing.assert_array_equal(left.labels, right.labels)
    assert list(left.attributes) == list(right.attributes)
    for name, values in left.attributes.items():
        np.testing.assert_array_equal(values, right.attributes[name])
    assert left.fingerprint == right.fingerprint


def test_shapes_types_and_ranges(spec):
    faces = load_faces(spec)
    count = len(faces.names)
    assert faces.images.shape == (count, 24, 24, 3)
    assert faces.images.dtype == np.uint8
    assert faces.labels.shape == (count,)
    assert faces.labels.dtype == np.int32
    assert sorted(set(faces.labels.tolist())) == list(range(len(faces.people)))
    assert list(faces.people) == sorted(set(faces.people))
    assert len(faces.content) == count
    assert all(values.shape == (count,) for values in faces.attributes.values())
    assert np.bincount(faces.labels).min() >= spec.min_images
    assert faces.images.std() > 5  # pictures, and not an empty buffer


def test_images_are_in_order_of_person_and_file(spec):
    faces = load_faces(spec)
    assert np.all(np.diff(faces.labels) >= 0)
    assert list(faces.names) == sorted(faces.names)
    assert len(set(faces.names)) == len(faces.names)


def test_the_same_spec_gives_the_same_faces(spec, tmp_path):
    first = load_faces(spec)
    assert_equal(first, load_faces(spec))  # from the cache, where there is one
    elsewhere = dataclasses.replace(spec, cache_dir=str(tmp_path / "cache"))
    assert_equal(first, load_faces(elsewhere))


def test_the_fingerprint_tells_faces_apart(spec):
    faces = load_faces(spec)
    touched = faces.images.copy()
    touched[-1, -1, -1, -1] ^= 1
    swapped = dataclasses.replace(faces, labels=faces.labels[::-1].copy())
    larger = load_faces(dataclasses.replace(spec, resolution=25))
    prints = {f.fingerprint for f in (faces, dataclasses.replace(faces, images=touched), swapped, larger)}
    assert len(prints) == 4


def test_the_order_in_which_a_disk_lists_its_files_does_not_matter(spec, tmp_path, monkeypatch):
    first = load_faces(spec)
    scan, list_folder, listed = os.scandir, os.listdir, []

    def list_reversed(path="."):
        listed.append(path)
        return sorted(list_folder(path), reverse=True)

    class Reversed:
        def __init__(self, path):
            with scan(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)
            listed.append(path)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    monkeypatch.setattr(os, "listdir", list_reversed)
    again = load_faces(dataclasses.replace(spec, cache_dir=str(tmp_path / "cache")))
    monkeypatch.undo()
    assert_equal(first, again)
    assert listed or spec.name in ("synthetic", "recordio")  # which list no folder


def test_it_loads_again_by_what_a_record_holds(spec):
    row = json.loads(json.dumps(to_plain(spec)))
    assert_equal(load_faces(spec), load_faces(DataSpec(**row)))


def test_the_source_is_named(spec):
    assert DATA_SETS[spec.name].source


def test_arrays_are_read_only_so_that_the_fingerprint_stays_true(spec):
    faces = load_faces(spec)
    for one in (faces, dataclasses.replace(faces, notes=()), pickle.loads(pickle.dumps(faces)), copy.deepcopy(faces)):
        assert one.fingerprint == faces.fingerprint
        for array in (one.images, one.labels, *one.attributes.values()):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[1]


def test_pixels_are_hashed_once_for_all_trials_on_them(spec, monkeypatch):
    hashed = []

    class Counted:
        def __init__(self, digest):
            self.digest = digest

        def update(self, data):
            hashed.append(len(memoryview(data).cast("B")))
            self.digest.update(data)

        def copy(self):
            return Counted(self.digest.copy())

        def hexdigest(self):
            return self.digest.hexdigest()

    sha256 = hashlib.sha256
    monkeypatch.setattr("ffem_jax.data.hashlib.sha256", lambda *data: Counted(sha256(*data)))
    monkeypatch.setattr("ffem_jax.data._pixel_digests", {})
    prints = {load_faces(spec).fingerprint for _ in range(4)}
    assert len(prints) == 1
    assert hashed.count(load_faces(spec).images.nbytes) == 1


def test_another_process_is_given_the_same_images(spec):
    with choose_loading("stream"):
        images = load_faces(spec).images
    if isinstance(images, np.ndarray):
        pytest.skip("held in memory however it is loaded")
    there = pickle.loads(cloudpickle.dumps(images))  # as Grain sends them
    np.testing.assert_array_equal(there[:], images[:])


def test_content_is_the_picture_and_not_the_name(spec):
    faces = load_faces(spec)
    assert len(set(faces.content)) == len(faces.content)


def test_two_people_are_needed(spec):
    if spec.name == "lfw52":
        pytest.skip("lfw52 is 52 people, whatever is asked")
    with pytest.raises(DataError, match="two are needed|required 2 people") as error:
        load_faces(dataclasses.replace(spec, people=1))
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match="lfw52, lfw, lfw_rest, folder, recordio, tfds, webdataset, parquet, synthetic"):
        DataSpec(name="celeba")


def test_the_fingerprint_of_the_pictures_is_blind_to_size_and_crop(tmp_path):
    root = write_people(tmp_path / "faces", {"Ann": 4, "Bob": 3})
    spec = DataSpec(name="folder", root=str(root), resolution=24)
    whole = load_faces(spec)
    for view in ({"resolution": 32}, {"crop": 0.5}):
        other = load_faces(dataclasses.replace(spec, **view))
        assert other.pictures_fingerprint == whole.pictures_fingerprint
        assert other.fingerprint != whole.fingerprint
    fewer = load_faces(dataclasses.replace(spec, max_images=3))
    assert fewer.pictures_fingerprint != whole.pictures_fingerprint
    turned = dataclasses.replace(whole, content=whole.content[::-1])
    assert turned.pictures_fingerprint != whole.pictures_fingerprint


# --------------------------------------------------------------------------- fingerprints


def make_faces(images: np.ndarray, **changes) -> Faces:
    count = len(images)
    parts = {
        "images": images,
        "labels": np.arange(count, dtype=np.int32) // 2,
        "people": tuple(f"p{person}" for person in range(count // 2)),
        "names": tuple(f"p/{image}" for image in range(count)),
        "content": tuple(map(str, range(count))),
    }
    return Faces(**parts | changes)


def make_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)


def test_what_is_written_to_through_another_view_does_not_change_the_faces():
    whole = make_images()
    faces = make_faces(whole[:4])
    before = faces.fingerprint
    whole[0] = 0
    assert faces.images[0].any()
    assert make_faces(faces.images.copy()).fingerprint == before


def test_a_fingerprint_is_not_taken_from_an_array_that_is_gone():
    """Arrays of one size get one address after another."""
    prints = set()
    for seed in range(50):
        prints.add(make_faces(make_images(seed)).fingerprint)
        gc.collect(0)
    assert len(prints) == 50


def test_labels_of_any_width_are_the_same_labels():
    images = make_images()
    wide = make_faces(images, labels=np.arange(4, dtype=np.int64) // 2)
    assert wide.fingerprint == make_faces(images).fingerprint


# ----------------------------------------------------------------------------- registering


OWN = DataSpec(resolution=24)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"images": np.zeros((4, 24, 24, 3), np.float32)}, "its images are float32[4, 24, 24, 3] and not uint8"),
        ({"images": np.zeros((4, 25, 25, 3), np.uint8)}, "and not uint8[4, 24, 24, 3]"),
        ({"images": np.zeros((4, 24, 24), np.uint8)}, "and not uint8[4, 24, 24, 3]"),
        ({"labels": np.array([1, 1, 2, 2], np.int32)}, "its labels are not 0 to 1, with an image of each"),
        ({"labels": np.array([0, 0, 0, 0], np.int32)}, "its labels are not 0 to 1, with an image of each"),
        ({"labels": np.array([-1, 0, 0, 1], np.int32)}, "its labels are not 0 to 1, with an image of each"),
        ({"labels": np.array([0, 0, 1], np.int32)}, "its labels are int32[3] and not int32[4]"),
        ({"labels": np.array([0.0, 0.0, 1.0, 1.0])}, "its labels are float64[4] and not int32[4]"),
        ({"names": ("a", "b", "c")}, "there are 3 names of 4 images"),
        ({"names": ("a", "b", "c", "c")}, "its names are not unique"),
        ({"people": ("p", "p")}, "its people are not unique"),
        ({"content": ()}, "there are 0 content of 4 images"),
        ({"attributes": {"age": np.zeros(3)}}, "there are 3 attributes['age'] of 4 images"),
    ],
)
def test_what_a_data_set_of_somebody_s_own_must_give_is_told_in_one_line(registered, changes, fault):
    register_data_set("own_faces")(lambda spec: make_faces(**{"images": make_images()} | changes))
    with pytest.raises(DataError, match="data=own_faces cannot be used: ") as caught:
        load_faces(dataclasses.replace(OWN, name="own_faces"))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_gives_no_faces_or_one_person_is_told_in_one_line(registered):
    register_data_set("arrays")(lambda spec: (make_images(), np.zeros(4)))
    with pytest.raises(DataError, match=r"it returns tuple and not ffem_jax\.data\.Faces"):
        load_faces(dataclasses.replace(OWN, name="arrays"))
    register_data_set("alone")(lambda spec: make_faces(make_images()[:2], people=("p",)))
    with pytest.raises(DataError, match="two are needed"):
        load_faces(dataclasses.replace(OWN, name="alone"))


def test_a_wrong_registration_is_one_line(registered):
    with pytest.raises(SpecError, match=r"data\.name=lfw is already registered"):
        register_data_set("lfw")(lambda spec: make_faces(make_images()))
    with pytest.raises(SpecError, match=r"its function is called with \(spec\)"):
        register_data_set("own_faces")(lambda: None)
    with pytest.raises(SpecError, match=r"find_pairs.*its function is called with \(spec\)"):
        register_data_set("own_faces", find_pairs=lambda: None)(lambda spec: None)
    assert "own_faces" not in DATA_SETS.names
