"""WebDataset's tar files, Parquet and Arrow tables, and sets that TensorFlow Datasets prepared."""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from made_sets import describe_features, draw_faces, encode, write_tar
from PIL import Image

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data.source import expand_braces
from ffem_jax.data.tfds import compute_masked_crc
from ffem_jax.specs.data import DataSpec

NAMES = ["Ann", "Bo", "Cy"]


def load(name: str, root: Path, **settings: Any) -> Faces:
    return load_faces(DataSpec(**{"name": name, "root": str(root), "resolution": 32, "min_images": 1} | settings))


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    pixels, labels = draw_faces()
    return pixels, labels, [encode(one) for one in pixels]


# ---------------------------------------------------------------------------------- WebDataset


def write_shards(root: Path, images: Sequence[bytes], labels: Sequence[Any], kind: str = "cls", each: int = 5) -> None:
    for first in range(0, len(images), each):
        files = {}
        for place in range(first, min(first + each, len(images))):
            files[f"{place:04d}.png"] = images[place]
            label = labels[place]
            files[f"{place:04d}.{kind}"] = (json.dumps(label) if kind == "json" else str(label)).encode()
        write_tar(root / f"train-{first // each:03d}.tar", files)


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_tar_files_are_read_to_the_pixel(tmp_path: Path, drawn, kind: str) -> None:
    pixels, labels, images = drawn
    write_shards(tmp_path, images, [{"label": n, "age": 3} if kind == "json" else n for n in labels.tolist()], kind)
    faces = load("webdataset", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    np.testing.assert_array_equal(faces.labels, labels)
    assert (faces.people, faces.notes) == (("0", "1", "2"), ())
    assert faces.names[5] == "train-001/0005"


def test_names_are_people_and_other_fields_can_be_meant(tmp_path: Path, drawn) -> None:
    _pixels, labels, images = drawn
    write_shards(tmp_path, images, [{"who": NAMES[n]} for n in labels], "json")
    faces = load("webdataset", tmp_path, label_field="who")
    assert faces.people == tuple(NAMES)
    np.testing.assert_array_equal(faces.labels, labels)
    with pytest.raises(DataError, match=r"its \.json has no label, but who; set data\.label_field"):
        load("webdataset", tmp_path)


def test_shards_are_chosen_and_what_is_left_out_is_said(tmp_path: Path, drawn) -> None:
    _, labels, images = drawn
    write_shards(tmp_path, images, labels.tolist())
    shutil.copy(tmp_path / "train-000.tar", tmp_path / "val-000.tar")
    faces = load("webdataset", tmp_path)
    assert len(faces.names) == 12
    assert faces.notes == ("files that are left out: val-000.tar; data.files='*' takes all",)
    assert len(load("webdataset", tmp_path, files="train-{000..001}.tar").names) == 10
    assert len(load("webdataset", tmp_path, files="{train-002,val-000}.tar").names) == 7
    assert len(load("webdataset", tmp_path, files="*.tar").names) == 17
    with pytest.raises(DataError, match=r"has no file train-003\.tar"):
        load("webdataset", tmp_path, files="train-{000..003}.tar")
    with pytest.raises(DataError, match="is no pattern"):
        load("webdataset", tmp_path, files="/etc/*")


def test_braces_are_as_in_a_shell() -> None:
    assert expand_braces("a") == ["a"]
    assert expand_braces("{a,b}-{8..11}") == [f"{x}-{n}" for x in "ab" for n in (8, 9, 10, 11)]
    assert expand_braces("s{08..10}") == ["s08", "s09", "s10"]


def test_samples_that_are_none_are_named_and_counted(tmp_path: Path, drawn) -> None:
    pixels, labels, images = drawn
    files = {f"{i}.png": image for i, image in enumerate(images)} | {
        f"{i}.cls": b"%d" % n for i, n in enumerate(labels)
    }
    files |= {
        "alone.jpg": images[0],
        "label.cls": b"1",
        "odd.png": images[0],
        "odd.cls": b"\xff",
        "list.png": images[0],
        "list.json": b"[1]",
        "torn.png": images[0],
        "torn.json": b"{",
        "empty.png": images[0],
        "empty.cls": b"",
        "minus.png": images[0],
        "minus.cls": b"-1",
        "broken.png": images[0][:50],
        "broken.cls": b"1",
        "0.txt": b"a caption",
        ".hidden": b"",
    }
    write_tar(tmp_path / "a.tar", files)
    faces = load("webdataset", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    text = "; ".join(faces.notes)
    for said in (
        "images without .cls or .json (1)",
        "samples without an image (1)",
        ".txt (1)",
        "hidden files (1)",
        "label cannot be read (4)",
        "a/odd (its label is no text)",
        "a/torn (its .json is no JSON)",
        "a/empty (its label is empty)",
        "skipped 1 images whose label is nobody's (-1)",
        "skipped a/broken: ",
    ):
        assert said in text, said


@pytest.mark.parametrize("where", ["in an image", "in a header", "damaged header", "at a header"])
def test_a_damaged_tar_file_keeps_what_comes_before_and_says_so(tmp_path: Path, drawn, where: str) -> None:
    pixels, labels, images = drawn
    path = tmp_path / "a.tar"
    files = {f"{i}.{kind}": data for i in range(12) for kind, data in (("png", images[i]), ("cls", b"%d" % labels[i]))}
    write_tar(path, files)
    with tarfile.open(path) as archive:
        member = archive.getmember("8.png")
    data = bytearray(path.read_bytes())
    if where == "damaged header":
        data[member.offset + 150] ^= 0xFF  # its checksum
    cut = {"in an image": member.offset_data + 100, "in a header": member.offset + 100, "at a header": member.offset}
    path.write_bytes(data[: cut.get(where, len(data))])
    faces = load("webdataset", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels[:8])
    assert any("a.tar" in note for note in faces.notes), faces.notes


def test_what_is_no_tar_file_is_refused(tmp_path: Path, drawn) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"a\.tar is no tar file, or a compressed one"):
        load("webdataset", tmp_path)
    (tmp_path / "a.tar").unlink()
    with tarfile.open(tmp_path / "b.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="gunzip"):
        load("webdataset", tmp_path)
    (tmp_path / "b.tar").unlink()
    with pytest.raises(DataError, match="has no file that ends in .tar"):
        load("webdataset", tmp_path)


# ------------------------------------------------------------------------------------- tables


def make_table(images: Sequence[bytes | None], labels: Sequence[Any], named: bool = True, **more: Any) -> pyarrow.Table:
    cells = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    table = pyarrow.table({"image": cells, "label": list(labels)} | more)
    return table.replace_schema_metadata(describe_features(NAMES)) if named else table


def write_table(path: Path, table: pyarrow.Table) -> None:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=5)
        return
    make = pyarrow.ipc.new_stream if "stream" in path.name else pyarrow.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


@pytest.mark.parametrize("file", ["train-0.parquet", "stream.arrow", "file.arrow"])
def test_tables_are_read_to_the_pixel_with_the_names_that_they_have(tmp_path: Path, drawn, file: str) -> None:
    pixels, labels, images = drawn
    write_table(tmp_path / file, make_table(images, labels.tolist()))
    faces = load("parquet", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    np.testing.assert_array_equal(faces.labels, labels)
    assert (faces.people, faces.notes) == (tuple(NAMES), ())


def test_plain_bytes_text_labels_and_several_tables(tmp_path: Path, drawn) -> None:
    pixels, labels, images = drawn
    for place, rows in enumerate((slice(0, 6), slice(6, 12))):
        table = pyarrow.table({"jpg": images[rows], "who": [NAMES[n] for n in labels[rows]], "age": [1] * 6})
        write_table(tmp_path / f"{place}.parquet", table)
    with pytest.raises(DataError, match=r"data\.label_field=NAME must say which field is meant: .* who, age"):
        load("parquet", tmp_path)
    faces = load("parquet", tmp_path, label_field="who")
    np.testing.assert_array_equal(faces.images, pixels)
    assert faces.people == tuple(NAMES)
    with pytest.raises(DataError, match=r"data\.image_field='who'"):
        load("parquet", tmp_path, label_field="who", image_field="who")


def test_rows_that_are_none_are_named_and_counted(tmp_path: Path, drawn) -> None:
    pixels, labels, images = drawn
    rows = [*images, None, images[0], images[0][:40], images[0]]
    write_table(tmp_path / "a.parquet", make_table(rows, [*labels.tolist(), 0, None, 1, -1]))
    (tmp_path / "b.parquet").write_bytes(b"no table")
    faces = load("parquet", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    text = "; ".join(faces.notes)
    assert "skipped b.parquet, which cannot be read" in text
    assert "skipped 2 images whose label is nobody's (none, -1)" in text
    assert "a/00000012: the table has its path alone, 12.png" in text
    assert "skipped a/00000014: " in text


def test_a_table_without_rows_and_many_groups(tmp_path: Path, drawn) -> None:
    pixels, labels, images = drawn
    table = make_table(images, labels.tolist())
    write_table(tmp_path / "a.parquet", table.slice(0, 0))
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet", row_group_size=1)
    faces = load("parquet", tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)


def test_a_damaged_table_is_named(tmp_path: Path, drawn) -> None:
    pixels, labels, images = drawn
    path = tmp_path / "a.parquet"
    table = make_table(images, labels.tolist())
    pyarrow.parquet.write_table(
        table, path, row_group_size=4, compression="none", write_page_checksum=True, use_dictionary=False
    )
    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)
    faces = load("parquet", tmp_path)
    np.testing.assert_array_equal(faces.images, np.delete(pixels, range(4, 8), axis=0))
    assert sum("the table is damaged there" in note for note in faces.notes) == 4
    path.write_bytes(data[:1000])
    with pytest.raises(DataError, match="has no table that can be read"):
        load("parquet", tmp_path)


def test_labels_of_one_name_stay_two_people(tmp_path: Path, drawn) -> None:
    _, labels, images = drawn
    table = make_table(images, labels.tolist()).replace_schema_metadata(describe_features(["Ann", " Ann", "Cy"]))
    write_table(tmp_path / "a.parquet", table)
    faces = load("parquet", tmp_path)
    assert faces.people == ("Ann (0)", "Ann (1)", "Cy")
    assert any("told apart by number: Ann" in note for note in faces.notes)


# --------------------------------------------------------------------------------------- TFDS


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
    assert "skipped 1 records, for its record is broken: the checksum is another: 1" in faces.notes
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
        assert any("skipped 1 records, for its record is broken: Corrupted" in note for note in faces.notes)
        return
    with pytest.raises(DataError) as caught:
        load("tfds", root, builder="made")
    said = {
        "missing": f"lacks files in {path.parent}: {path.name}",
        "cut off": "skipped 12 records, for its record is empty",
    }
    assert said[how] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path: Path, prepared: Path) -> None:
    for settings, said in (
        ({}, r"needs data\.builder=NAME; .* has made"),
        ({"builder": "mnist"}, r"data\.builder=mnist cannot be opened in .*, which has made"),
        ({"builder": "made:9.0.0"}, "cannot be opened"),
        ({"builder": "made", "split": "dev"}, r"data\.split='dev' is no split of made, which has train, test"),
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
    pixels, labels, images = drawn
    write_shards(tmp_path, images, labels.tolist())
    assert load("webdataset", tmp_path).content == load("tfds", prepared, builder="made").content
    assert Image.fromarray(pixels[0]).size == (32, 32)
