"""`attributes.csv` as people and spreadsheets write it: read one way, or refused; whatever is passed over is said."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_folders import make_picture, write_people

from ffem_jax.data import load_faces
from ffem_jax.data.attributes import AttributesError, read_attributes
from ffem_jax.specs.trial import DataSpec

NAMES = [f"{person}/{number}.png" for person in "ab" for number in range(3)]
NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


@pytest.fixture
def read(tmp_path):
    """Reads the columns of a table given as text or bytes, for the images NAMES or others."""

    def read(content, names=NAMES, everybody=()):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_attributes(path, names, everybody)

    return read


def write_rows(*columns, head="path,value", names=NAMES) -> str:
    return "\n".join([head, *(",".join(row) for row in zip(names, *columns, strict=True))]) + "\n"


def told(notes, text) -> bool:
    return any(text in note for note in notes)


# --------------------------------------------------------------------------------- as it should be


def test_attributes_become_numbers_where_they_can(read):
    text = "\ufeffpath,glasses,gender,age\nb/2.jpg,0.5,male,\n./a/1.jpg,,female,31\na\\9.jpg,1,male,7\n"
    attributes, notes = read(text, ["a/1.jpg", "b/2.jpg", "b/3.jpg", "a/9.jpg"])
    assert notes == ()
    assert list(attributes) == ["glasses", "gender", "age"]
    np.testing.assert_array_equal(attributes["glasses"], [np.nan, 0.5, np.nan, 1.0])
    assert attributes["gender"].tolist() == ["female", "male", "", "male"]
    np.testing.assert_array_equal(attributes["age"], [31, np.nan, np.nan, 7])


def test_a_clean_table_says_nothing(read):
    attributes, notes = read(write_rows(["f", "m"] * 3, ["0.25", "-1e-2", "+3", ".5", "7.", ""], head="path,sex,x"))
    assert notes == ()
    assert attributes["sex"].tolist() == ["f", "m"] * 3
    np.testing.assert_array_equal(attributes["x"], [0.25, -0.01, 3, 0.5, 7, np.nan])


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["", "./", "faces/", "C:\\faces\\"]),
)
def test_how_a_table_is_written_decides_nothing(tmp_path_factory, values, order, separator, encoding, form, above):
    names = [f"José/{i}.png" for i in range(2)] + [f"李/{i}.png" for i in range(2)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator)
    writer.writerow(["größe", "path"])
    for i in order:
        writer.writerow(["" if values[i] is None else repr(values[i]), unicodedata.normalize(form, above + names[i])])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(file.getvalue().encode(encoding))
    attributes, notes = read_attributes(path, names)
    np.testing.assert_array_equal(attributes["größe"], [np.nan if value is None else value for value in values])
    assert [note for note in notes if "are relative to" not in note] == []
    assert len(notes) == (above not in ("", "./"))


# ------------------------------------------------------------------------- rows, and what they say


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a/0.png,f\na/1.png,m\na/0.png,m\n", "column value: a/0.png is 'f' in line 2 and 'm' in line 4; keep one row"),
        ("a/0.png,1\n./a/0.png,1.5\n", "a/0.png is '1' in line 2 and '1.5' in line 3"),
        (
            "a/0.png,f\na/1.png,f\na/1.png,m\na/0.png,m\n",
            "a/1.png is 'f' in line 3 .* and 1 more images have two values",
        ),
    ],
)
def test_two_things_said_of_one_image_are_refused_with_their_lines(read, rows, message):
    with pytest.raises(AttributesError, match=message):
        read(f"path,value\n{rows}")


def test_the_same_said_twice_is_counted(read):
    attributes, notes = read("path,sex,x\na/0.png,Male,1\na/0.png,male ,1.0\na/0.png,,\na/1.png,Male,\na/1.png,,2\n")
    assert attributes["sex"].tolist()[:2] == ["Male", "Male"]
    assert attributes["x"].tolist()[:2] == [1, 2]
    assert told(notes, "images with several rows, which agree (2): a/0.png (lines 2, 3, 4), a/1.png (lines 5, 6)")


def test_rows_of_no_image_are_counted_and_named(read):
    _, notes = read("path,x\na/0.png,1\nz/9.png,1\na/0.jpg,1\na/1.png,1\n", everybody=[*NAMES, "c/0.png"])
    assert notes == ("table.csv: rows that match no image (2): z/9.png (line 3), a/0.jpg (line 4)",)
    _, notes = read("path,x\na/0.png,1\nc/0.png,1\n", everybody=[*NAMES, "c/0.png"])
    assert not told(notes, "none of the images")


def test_a_folder_that_only_some_paths_begin_with_is_another_folder(read):
    _, notes = read("path,x\ntrain/a/0.png,1\ntest/a/0.png,2\na/1.png,3\n")
    assert told(notes, "(2): train/a/0.png (line 2), test/a/0.png (line 3)")
    attributes, notes = read("path,x\nfaces/a/0.png,1\na/1.png,3\n")
    assert attributes["x"].tolist()[:2] == [1, 3]
    assert told(notes, "paths are relative to faces")
    with pytest.raises(AttributesError, match="a/0.png is '1' in line 2 and '2' in line 3"):
        read("path,x\nfaces/a/0.png,1\na/0.png,2\n")


def test_cells_too_many_too_few_and_without_a_name(read):
    with pytest.raises(AttributesError, match="line 3 has 3 cells where the first line names 2; quote"):
        read("path,x\na/0.png,1\nb/0.png,0,5\n")
    attributes, notes = read("path,,x,y\na/0.png,,1,2,,\n\na/1.png,?,3\n,,7,\n,,,\na/2.png\n")
    np.testing.assert_array_equal(attributes["x"][:3], [1, 3, np.nan])
    assert list(attributes) == ["x", "y"]
    assert told(notes, "fewer cells than the first line, the missing ones counted as unknown: 2, lines 4, 7")
    assert told(notes, "cells skipped because their column has no name: 1, lines 4")
    assert told(notes, "rows skipped because they have no path: 1, lines 5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first line names no column `path`"),
        ("file,age\na/0.png,3\n", "names no column `path`; it has file, age"),
        ("Path,age\na/0.png,3\n", "names no column `path`; it has Path, age"),
        ("path,age\nx.png,3\n", "names none of the images, such as a/0.png"),
        ("path,age,age\na/0.png,3,4\n", "its first line names age more than once"),
        ("path,path\na/0.png,a/1.png\n", "its first line names path more than once"),
        (f"path,{NFC},{NFD} \na/0.png,3,4\n", "names José more than once"),
        ('path,x\na/0.png,"1\na/1.png,2\n', 'line 2 cannot be read .*is a " left open'),
        ('path,x\na/0.png,"1\na/1.png,"\na/2.png,3\n', 'lines 2 to 3 are one row: a " in line 2 stays open'),
        ("path,x\na/0.png,1\n".encode("utf-16-le"), "it is not UTF-8 text"),
        (b"path,x\n\xff\x81,1\n", "line 2 is neither UTF-8 nor Windows-1252"),
        (b"PK\x03\x04\x00\x00", "it is not UTF-8 text"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(read, content, message):
    with pytest.raises(AttributesError, match=message) as error:
        read(content)
    assert "\n" not in str(error.value)


def test_windows_1252_is_read_and_said(read):
    table = f"path;größe\r\n{NFC}/1.png;klein\r\n".encode("cp1252")
    attributes, notes = read(table, [f"{NFD}/1.png"])
    assert attributes["größe"].tolist() == ["klein"]
    assert notes == ("table.csv: line 1 is not UTF-8, so the file is read as Windows-1252; save it as UTF-8",)


# ------------------------------------------------------------------------------------- numbers


def test_words_for_not_known_leave_a_column_one_of_numbers(read):
    for word in ("NA", "n/a", "nan", "NULL", "-", "?", "#N/A", "unknown"):
        attributes, notes = read(write_rows(["0.5", word, "1", word, "2", "3"]))
        np.testing.assert_array_equal(attributes["value"], [0.5, np.nan, 1, np.nan, 2, 3])
        assert notes == (f"table.csv: column value: read as unknown: {word!r} (line 3) and 1 more",)


@pytest.mark.parametrize("odd", ["abc", "inf", "-Infinity", "1e999", "1_000", "0x10", "٣", "5%", "1 2"])
def test_what_is_no_number_among_numbers_is_named(read, odd):
    attributes, notes = read(write_rows(["0.5", "1", odd, "1", "2", "3"]))
    np.testing.assert_array_equal(attributes["value"], [0.5, 1, np.nan, 1, 2, 3])
    assert notes == (f"table.csv: column value: non-numbers among numbers, read as unknown: {odd!r} (line 4)",)


def test_numbers_among_text_are_text_and_said(read):
    attributes, notes = read(write_rows(["old", "young", "7", "old", "old", "8"]))
    assert attributes["value"].tolist() == ["old", "young", "7", "old", "old", "8"]
    assert told(notes, "numbers, '7' (line 4) and 1 more, are mixed with text, 'old' (line 2) and 3 more; all")


def test_decimal_commas_are_read_where_they_can_be_nothing_else(read):
    rows = "\n".join(
        f"{name};{value}" for name, value in zip(NAMES, ["0,5", "12,25", "1,250", "3", "1.5", ""], strict=True)
    )
    attributes, notes = read(f"path;x\n{rows}\n")
    np.testing.assert_array_equal(attributes["x"], [0.5, 12.25, 1.25, 3, 1.5, np.nan])
    assert told(notes, "decimal commas are read as points: '0,5' (line 2) and 2 more")
    with pytest.raises(AttributesError, match=r"column x: '1,250' \(line 3\) may mean thousands or decimals"):
        read("path;x\na/0.png;12.5\na/1.png;1,250\n")


def test_a_column_that_says_nothing_is_not_known(read):
    attributes, _ = read(write_rows([""] * 6, ["NA"] * 6, head="path,x,y"))
    assert np.isnan(attributes["x"]).all()
    assert np.isnan(attributes["y"]).all()


# -------------------------------------------------------------------------------------- groups


def test_one_value_in_several_spellings_is_one_group(read):
    sexes, names = ["Male", " male", "MALE ", "male", "female", NFC], ["", NFD, NFC, NFC, "x  y", "x Y"]
    attributes, notes = read(write_rows(sexes, names, head="path,sex,name"))
    assert attributes["sex"].tolist() == ["male"] * 4 + ["female", NFC]
    assert attributes["name"].tolist() == ["", NFC, NFC, NFC, "x y", "x y"]
    assert notes == (
        "table.csv: column sex: spelled in several ways: 'Male' (line 2), 'male' (line 3), 'MALE' (line 4) are one "
        "value, 'male'",
        "table.csv: column name: spelled in several ways: 'x y' (line 6), 'x Y' (line 7) are one value, 'x y'",
    )


def test_a_word_for_not_known_among_groups_is_said(read):
    attributes, notes = read(write_rows(["f", "m", "NA", "f", "m", "na"]))
    assert attributes["value"].tolist()[2] == "NA"
    assert told(notes, "'NA' (line 4) and 1 more is a group of its own; leave the cell empty")


# ---------------------------------------------------------------------------- beside the faces


@pytest.fixture
def root(tmp_path) -> Path:
    return write_people(tmp_path / "faces", {"ann": 2, "bob": 2}, "png")


def load(root: Path, **options):
    return load_faces(DataSpec(name="folder", root=str(root), **{"resolution": 16, "min_images": 1, **options}))


def test_an_edit_of_the_table_is_seen_and_costs_no_decoding(root, monkeypatch):
    table = root / "attributes.csv"
    table.write_text("path,x\nann/ann_0001.png,1\n")
    before = load(root)
    monkeypatch.setattr("ffem_jax.data.folder.decode_faces", lambda *words: pytest.fail("decoded again"))
    table.write_text("path,x\nann/ann_0001.png,2\n")
    after = load(root)
    assert (before.attributes["x"][0], after.attributes["x"][0]) == (1, 2)
    table.write_text("path,x\nann/ann_0001.png,2\nann/ann_0001.png,3\n")
    faces = load(root)
    assert faces.attributes == {}
    assert told(faces.notes, "attributes.csv ignored: column x: ann/ann_0001.png is '2' in line 2 and '3' in line 3")
    assert faces.fingerprint == before.fingerprint


def test_a_table_that_cannot_be_read_now_is_read_the_next_time(root, monkeypatch):
    table = root / "attributes.csv"
    table.write_text("path,x\nann/ann_0001.png,1\n")
    real = Path.read_bytes

    def refuse(path):
        if path == table:
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert told(load(root).notes, "attributes.csv ignored: it cannot be read (Input/output error)")
    assert load(root).attributes["x"][0] == 1


@pytest.mark.parametrize("make", ["link", "folder"])
def test_a_table_that_is_none_is_said(root, make):
    if make == "link":
        (root / "attributes.csv").symlink_to("nowhere.csv")
    else:
        (root / "attributes.csv").mkdir()
    assert told(load(root).notes, "attributes.csv")


def test_images_without_a_value_are_counted(root):
    (root / "attributes.csv").write_text("path,x,y\nann/ann_0001.png,1,\nann/ann_0002.png,,a\nbob/bob_0002.png,,\n")
    assert load(root).notes == ("attributes.csv: 2 of 4 images have no value, such as bob/bob_0001.png",)


def test_rows_of_images_that_were_not_taken_are_no_mistake(root):
    (root / "attributes.csv").write_text(
        "path,x\n" + "".join(f"{p}/{p}_000{i}.png,{i}\n" for p in ("ann", "bob") for i in (1, 2))
    )
    assert load(root, max_images=1).notes == ()


def test_paths_of_either_form_reach_both_spellings_of_a_person(tmp_path):
    for seed, folder in enumerate((NFC, NFD, "ann")):
        (tmp_path / folder).mkdir()
        make_picture(seed).save(tmp_path / folder / "1.png")
    (tmp_path / "attributes.csv").write_text(f"path,x\n{NFC}/1.png,1\n{NFD}/1.png,2\nann/1.png,3\n")
    faces = load(tmp_path)
    assert dict(zip(faces.names, faces.attributes["x"], strict=True)) == {
        f"{NFC}/1.png": 1, f"{NFD}/1.png": 2, "ann/1.png": 3,
    }  # fmt: skip


def test_a_table_in_the_bytes_of_the_disk_names_its_files(tmp_path):
    root = write_people(tmp_path / "faces", {"ann": 1}, "png")
    folder = str(root).encode() + b"/Jos\xe9"
    os.mkdir(folder)
    with open(folder + b"/1.png", "wb") as file:
        make_picture(5).save(file, "PNG")
    (root / "attributes.csv").write_bytes(b"path,x\nJos\xe9/1.png,4\nann/ann_0001.png,5\n")
    assert load(root).attributes["x"].tolist() == [4, 5]
    (root / "attributes.csv").write_text("path,x\nJos\\xe9/1.png,6\nann/ann_0001.png,5\n")  # as a note shows it
    assert load(root).attributes["x"].tolist() == [6, 5]
