"""WebDataset's tar files."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_sets import NAMES, load, write_shards, write_tar

from ffem_jax.data import DataError
from ffem_jax.data.source import expand_braces


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
    assert faces.notes == ("files left out: val-000.tar; data.files='*' uses all",)
    assert len(load("webdataset", tmp_path, files="train-{000..001}.tar").names) == 10
    assert len(load("webdataset", tmp_path, files="{train-002,val-000}.tar").names) == 7
    assert len(load("webdataset", tmp_path, files="*.tar").names) == 17
    with pytest.raises(DataError, match=r"has no file train-003\.tar"):
        load("webdataset", tmp_path, files="train-{000..003}.tar")
    with pytest.raises(DataError, match="is not a valid file pattern"):
        load("webdataset", tmp_path, files="/etc/*")


@pytest.mark.parametrize("files", ["/elsewhere/*.tar", "{,a.tar}"])
def test_what_is_no_pattern_below_the_root_is_one_line(tmp_path: Path, files: str) -> None:
    with pytest.raises(DataError, match=r"data\.files='.*' is not a valid file pattern below data\.root \(.+\)$"):
        load("webdataset", tmp_path, files=files)


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
        "a/odd (its label is not text)",
        "a/torn (its .json is not valid JSON)",
        "a/empty (its label is empty)",
        "skipped 1 images without an identity (-1)",
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
    with pytest.raises(DataError, match=r"a\.tar is not a tar file, or a compressed one"):
        load("webdataset", tmp_path)
    (tmp_path / "a.tar").unlink()
    with tarfile.open(tmp_path / "b.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="gunzip"):
        load("webdataset", tmp_path)
    (tmp_path / "b.tar").unlink()
    with pytest.raises(DataError, match="has no file with the extension .tar"):
        load("webdataset", tmp_path)
