"""Sets that TensorFlow Datasets prepared, read without TensorFlow."""

from __future__ import annotations

import io
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from made_sets import NAMES, draw_faces, encode, load, write_shards

from ffem_jax.data import DataError
from ffem_jax.data.tfds import compute_masked_crc


class Made(tfds.core.GeneratorBasedBuilder):
    """Three people's drawn faces."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(encoding_format="png"), "label": tfds.features.ClassLabel(names=NAMES)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

    def _generate_examples(self, seed: int) -> Any:
        for place, (one, label) in enumerate(zip(*draw_faces(seed=seed), strict=True)):
            yield place, {"image": io.BytesIO(encode(one)), "label": int(label)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tfds")
    Made(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def read_raw(path: Path) -> list[bytes]:
    """The records of an ArrayRecord file, which are the same examples as in TFRecord."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    return [reader.read([place])[0] for place in range(reader.num_records())]


def write_tfrecords(prepared: Path, root: Path) -> Path:
    """The prepared set as TFDS writes it unless told otherwise; returns the training file."""
    folder = shutil.copytree(prepared, root / "tf") / "made" / "1.0.0"
    about = folder / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "tfrecord"))
    for path in folder.glob("*.array_record-*"):
        data = b""
        for record in read_raw(path):
            head = struct.pack("<Q", len(record))
            data += head + struct.pack("<I", compute_masked_crc(head)) + record
            data += struct.pack("<I", compute_masked_crc(record))
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(data)
        path.unlink()
    return folder / "made-train.tfrecord-00000-of-00001"


def test_the_checksum_is_that_of_its_definition() -> None:
    # RFC 3720, B.4: CRC-32C of 32 bytes of zeros is 0x8a9136aa.
    crc = 0x8A9136AA
    assert compute_masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_prepared_set_is_read_by_name_without_tensorflow(tmp_path: Path, prepared: Path, drawn, kind: str) -> None:
    imported = "tensorflow" in sys.modules  # by another test
    pixels, labels, _ = drawn
    root = prepared
    if kind == "tfrecord":
        write_tfrecords(prepared, tmp_path)
        root = tmp_path / "tf"
    faces = load("tfds", root, builder="made")
    np.testing.assert_array_equal(faces.images, pixels)
    np.testing.assert_array_equal(faces.labels, labels)
    assert (faces.people, faces.notes, faces.names[0]) == (tuple(NAMES), (), "Ann/00000000")
    assert ("tensorflow" in sys.modules) == imported
    part = load("tfds", root, builder="made:1.0.0", split="train[:50%]+test")
    assert len(part.names) == 18
    np.testing.assert_array_equal(part.images[:6], pixels[:6])


def test_broken_tfrecords_are_named(tmp_path: Path, prepared: Path, drawn) -> None:
    pixels, _, _ = drawn
    path = write_tfrecords(prepared, tmp_path)
    whole = path.read_bytes()
    (first,) = struct.unpack_from("<Q", whole)
    flipped = bytearray(whole)
    flipped[16 + first + 12 + 200] ^= 1  # in the second record's bytes
    path.write_bytes(flipped)
    faces = load("tfds", tmp_path / "tf", builder="made")
    np.testing.assert_array_equal(faces.images, np.delete(pixels, 1, axis=0))
    assert "skipped 1 records (its record is corrupt: wrong checksum): 1" in faces.notes
    path.write_bytes(whole[:-10])
    faces = load("tfds", tmp_path / "tf", builder="made")
    np.testing.assert_array_equal(faces.images, pixels[:-1])
    assert any("has 11 of 12 records: the file ends in a record" in note for note in faces.notes)


@pytest.mark.parametrize("how", ["cut off", "missing", "flipped"])
def test_broken_array_records_are_named(tmp_path: Path, prepared: Path, drawn, how: str) -> None:
    root = shutil.copytree(prepared, tmp_path / "set")
    path = root / "made" / "1.0.0" / "made-train.array_record-00000-of-00001"
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(data[: len(data) // 2])
    else:
        written = np.flatnonzero(np.frombuffer(data, np.uint8))  # the rest of a block is zeros
        data[written[len(written) // 3]] ^= 0xFF
        path.write_bytes(data)
    if how == "flipped":
        faces = load("tfds", root, builder="made")
        assert len(faces.names) == 11
        assert any("skipped 1 records (its record is corrupt: Corrupted" in note for note in faces.notes)
        return
    with pytest.raises(DataError) as caught:
        load("tfds", root, builder="made")
    said = {
        "missing": f"lacks files in {path.parent}: {path.name}",
        "cut off": "skipped 12 records (its record is empty)",
    }
    assert said[how] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path: Path, prepared: Path) -> None:
    for settings, said in (
        ({}, r"needs data\.builder=NAME; .* has made"),
        ({"builder": "mnist"}, r"data\.builder=mnist cannot be opened in .*, which has made"),
        ({"builder": "made:9.0.0"}, "cannot be opened"),
        ({"builder": "made", "split": "dev"}, r"data\.split='dev' is not a split of made, which has train, test"),
        ({"builder": "made", "label_field": "who"}, r"data\.label_field='who'"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            load("tfds", prepared, **settings)
        assert "\n" not in str(caught.value)
    write_tfrecords(prepared, tmp_path)
    about = tmp_path / "tf" / "made" / "1.0.0" / "dataset_info.json"
    about.write_text(about.read_text().replace("tfrecord", "riegeli"))
    with pytest.raises(DataError, match="riegeli"):
        load("tfds", tmp_path / "tf", builder="made")


def test_a_picture_of_two_formats_has_one_hash(tmp_path: Path, prepared: Path, drawn) -> None:
    _, labels, images = drawn
    write_shards(tmp_path, images, labels.tolist())
    assert load("webdataset", tmp_path).content == load("tfds", prepared, builder="made").content


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_an_empty_slice_is_one_line(tmp_path: Path, prepared: Path, kind: str) -> None:
    root = prepared
    if kind == "tfrecord":
        root = write_tfrecords(prepared, tmp_path).parents[2]
    with pytest.raises(DataError, match=r"data.split='train\[5:5\]' of data.builder=made is empty"):
        load("tfds", root, builder="made", split="train[5:5]")
