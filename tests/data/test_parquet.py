"""Parquet and Arrow tables."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from made_sets import NAMES, describe_features, load

from ffem_jax.data import DataError
from ffem_jax.data.read_ahead import choose_loading


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
    with pytest.raises(DataError, match=r"set data\.label_field=NAME to choose the field: .* who, age"):
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
    assert "skipped 2 images without an identity (none, -1)" in text
    assert "a/00000012: the table has only its path, 12.png" in text
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
    assert any("distinguished by number: Ann" in note for note in faces.notes)


def test_a_table_that_could_not_be_opened_is_no_damaged_one(tmp_path: Path, drawn, monkeypatch) -> None:
    """What is left out of a set for good is what is damaged; too many open files are this time's."""
    pixels, labels, images = drawn
    for place, rows in enumerate((slice(0, 6), slice(6, 12))):
        write_table(tmp_path / f"{place}.parquet", make_table(images[rows], labels[rows].tolist()))
    opened = pyarrow.parquet.ParquetFile

    def fail(path: Path) -> Any:
        if path.name == "1.parquet":
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path)

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", fail)
    with pytest.raises(DataError, match=r"1.parquet cannot be opened \(Too many open files\); load the faces again"):
        load("parquet", tmp_path)
    monkeypatch.undo()
    np.testing.assert_array_equal(load("parquet", tmp_path).images, pixels)


def test_more_tables_than_are_kept_open(tmp_path: Path, drawn, monkeypatch) -> None:
    pixels, labels, images = drawn
    monkeypatch.setattr("ffem_jax.data.parquet.TABLES_OPEN", 2)
    for row in range(12):
        write_table(tmp_path / f"{row:02d}.parquet", make_table(images[row : row + 1], labels[row : row + 1].tolist()))
    with choose_loading("stream"):
        faces = load("parquet", tmp_path, cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(faces.images[::-1], pixels[::-1])
