"""insightface's record files: read whole, and every way in which they can be broken, named and counted."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_sets import (
    MAGIC,
    draw_faces,
    encode,
    make_contents,
    pack_image,
    pack_record,
    write_recordio,
    write_records,
)
from PIL import Image

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data.file_bytes import open_bytes
from ffem_jax.data.read_ahead import choose_loading
from ffem_jax.data.recordio import RecordError, RecordReader, RecordSource, read_record, scan_records
from ffem_jax.specs.data import DataSpec


def load(root: Path, **settings: Any) -> Faces:
    return load_faces(DataSpec(**{"name": "recordio", "root": str(root), "resolution": 32, "min_images": 1} | settings))


def test_a_whole_set_is_read_to_the_pixel_and_nothing_is_said(tmp_path: Path) -> None:
    pixels, labels = write_recordio(tmp_path)
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    np.testing.assert_array_equal(faces.labels, labels)
    assert (faces.people, faces.notes, faces.unread) == (("0", "1", "2"), (), ())
    assert faces.names[:2] == ("0/00000001", "0/00000002")


def test_jpeg_label_vectors_and_other_orders_of_the_index_are_read(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    contents = [
        pack_image(encode(one, "JPEG"), [float(label), 1.0], key)
        for key, (one, label) in enumerate(zip(pixels, labels, strict=True))
    ]
    write_records(tmp_path, contents)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    (tmp_path / "train.idx").write_text("\n".join(lines[::-1]))
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.labels, labels)
    assert faces.notes == ()


@given(
    st.lists(st.lists(st.sampled_from([MAGIC, b"abcd", b"x", b"\x0a\x23", b""]), max_size=6).map(b"".join), max_size=6)
)
def test_records_come_back_wherever_the_magic_number_stands_in_them(contents: list[bytes]) -> None:
    data = b"".join(map(pack_record, contents))
    starts, damaged = scan_records(data, thorough=True)
    assert [read_record(data, start) for start in starts] == contents
    assert damaged == {}


def test_an_image_with_the_magic_number_in_it_is_whole(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    images = [encode(one) for one in pixels]
    # Behind the image's end, where decoders do not look; 24 bytes of header precede it.
    images = [image + b"\0" * (-len(image) % 4) + MAGIC + b"rest" for image in images]
    write_records(tmp_path, make_contents(images, labels.tolist()))
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    assert faces.notes == ()


def test_a_missing_index_is_made_up_for_and_said(tmp_path: Path) -> None:
    whole = write_recordio(tmp_path)
    expected = load(tmp_path)
    (tmp_path / "train.idx").unlink()
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, whole[0])
    assert faces.names == expected.names
    assert [note for note in faces.notes if "train.idx is missing" in note and "16 records" in note] == list(
        faces.notes
    )


@pytest.mark.parametrize("how", ["shifted", "short", "no numbers", "beyond", "repeated key", "binary"])
def test_an_index_that_lies_is_not_believed(tmp_path: Path, how: str) -> None:
    pixels, _ = write_recordio(tmp_path)
    index = tmp_path / "train.idx"
    lines = index.read_text().splitlines()
    changed = {
        "shifted": [f"{line.split()[0]}\t{int(line.split()[1]) + 4}" for line in lines],
        "short": lines[:5],
        "no numbers": [*lines, "one\ttwo"],
        "beyond": [*lines, "99\t99999999"],
        "repeated key": [*lines[:-1], "3\t" + lines[-1].split()[1]],
        "binary": ["\xff\xfe"],
    }[how]
    index.write_text("\n".join(changed), encoding="latin-1")
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    assert len(faces.notes) == 1
    assert "train.idx" in faces.notes[0]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("fault", ["magic", "too long", "swallows the next", "too short", "flag", "beyond the end"])
def test_one_broken_record_costs_that_record_and_is_named(tmp_path: Path, fault: str, indexed: bool) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    path, broken = tmp_path / "train.rec", 3  # the third image
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<I", data, starts[broken] + 4)
    word = {
        "too long": length + 8,
        "swallows the next": starts[broken + 2] - starts[broken] - 8,
        "too short": 60,
        "flag": 2 << 29 | length,
        "beyond the end": 1 << 28,
    }.get(fault, length)
    struct.pack_into("<I", data, starts[broken] + 4, word)
    data[starts[broken]] ^= 1 if fault == "magic" else 0
    path.write_bytes(data)
    if not indexed:
        (tmp_path / "train.idx").unlink()
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, np.delete(pixels, broken - 1, axis=0))
    np.testing.assert_array_equal(faces.labels, np.delete(labels, broken - 1))
    named = [note for note in faces.notes if f"{starts[broken]:,}" in note or "/00000003:" in note]
    assert named, faces.notes


def test_a_truncated_file_keeps_what_is_whole(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    starts = write_records(tmp_path, make_contents([encode(one) for one in pixels], labels.tolist()), 3)
    data = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(data[: starts[10] + 40])
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, pixels[:9])
    text = "; ".join(faces.notes)
    assert "the file ends in it" in text
    assert "record 0 announces 12 images, but there are 9" in text


def test_empty_records_and_labels_that_are_none_are_named_and_counted(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    images = [encode(one) for one in pixels]
    contents = [pack_image(image, float(label)) for image, label in zip(images, labels, strict=True)]
    contents += [
        b"",
        b"short",
        pack_image(b"", 1.0),
        pack_image(images[0], 1.5),
        pack_image(images[0], float("nan")),
        pack_image(images[0], -1.0),
        struct.pack("<IfQQ", 1 << 30, 0.0, 0, 0) + images[0],
        pack_image(b"no picture", 2.0),
    ]
    write_records(tmp_path, contents)
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.images, pixels)
    text = "; ".join(faces.notes)
    assert "skipped corrupt records of train.rec (5): " in text
    for reason in ("it is empty", "5 bytes", "label 1.5", "label nan", "1,073,741,824 labels"):
        assert reason in text
    assert "skipped records without an image (1): record 14" in text
    assert "skipped 1 images without an identity (-1)" in text
    assert "skipped 2/00000019: unknown format" in text


def test_labels_with_gaps_are_counted_anew_and_said(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    numbers = np.array([10, 4, 700])[labels]
    write_records(tmp_path, [pack_image(encode(one), float(n)) for one, n in zip(pixels, numbers, strict=True)])
    faces = load(tmp_path)
    assert faces.people == ("4", "10", "700")
    assert [faces.people[label] for label in faces.labels] == [str(n) for n in numbers]
    assert "3 of the numbers 4 to 700 instead of 0 to 2" in faces.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4,32,32", "4 people, but the records have 3"),
        ("3,112,112", "112 x 112 pixels, but 12 of 12 are not: 32 x 32 (12)"),
        ("3", "property is ignored"),
        ("", "property is ignored"),
    ],
)
def test_a_property_that_disagrees_is_said(tmp_path: Path, text: str, said: str) -> None:
    pixels, _ = write_recordio(tmp_path)
    (tmp_path / "property").write_text(text)
    faces = load(tmp_path)
    assert len(faces.notes) == 1
    assert said in faces.notes[0]
    np.testing.assert_array_equal(faces.images, pixels)


def test_heads_that_disagree_are_said(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    contents = make_contents([encode(one) for one in pixels], labels.tolist())
    contents[-1] = pack_image(b"", [1.0, 13.0])  # all images, of three people
    contents[0] = pack_image(b"", [13.0, 20.0])
    write_records(tmp_path, contents)
    text = "; ".join(load(tmp_path).notes)
    assert "record 0 announces 7 people, but 3 have a record" in text
    assert "images have no or several labels (1): record 15" in text


def test_odd_pixels_are_read_and_named(tmp_path: Path) -> None:
    pixels, labels = draw_faces()
    images = [encode(one) for one in pixels]
    images[0] = encode(Image.fromarray(pixels[0]).convert("CMYK"), "JPEG")
    grey = np.asarray(Image.fromarray(pixels[1]).convert("L")).astype(np.uint16) * 257
    images[1] = encode(Image.fromarray(grey))
    write_records(tmp_path, make_contents(images, labels.tolist()))
    faces = load(tmp_path)
    assert len(faces.names) == 12
    np.testing.assert_array_equal(faces.images[1, ..., 0], grey // 257)
    assert abs(faces.images[0].astype(int) - pixels[0]).mean() < 12
    text = "; ".join(faces.notes)
    assert "images in mode CMYK (1), converted to 8-bit RGB: 0/00000001" in text
    assert "I;16 (1)" in text


def test_people_and_images_are_selected_as_in_a_folder(tmp_path: Path) -> None:
    pixels, labels = draw_faces(people=4, images=5)
    kept = np.concatenate([np.flatnonzero(labels == person)[:count] for person, count in enumerate([2, 5, 4, 1])])
    images = [encode(one) for one in pixels[kept]]
    broken = 3  # person 1's second
    images[broken] = images[broken][:60]
    write_records(tmp_path, make_contents(images, labels[kept].tolist()))
    faces = load(tmp_path, min_images=3, max_images=2)
    assert faces.people == ("1", "2")
    assert faces.names == ("1/00000003", "1/00000005", "2/00000008", "2/00000009")
    assert any("left out 2 of 4 people, with fewer than data.min_images=3" in note for note in faces.notes)
    assert load(tmp_path, people=3).people == ("0", "1", "2")
    with pytest.raises(DataError, match="0 of the required 2 people"):
        load(tmp_path, min_images=5)


def test_a_set_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordio(tmp_path)
    monkeypatch.setattr("ffem_jax.data.memory.find_free_memory", lambda: 30_000)
    with choose_loading("memory"), pytest.raises(DataError, match=r"12 images of 32 x 32 pixels need .*data.people"):
        load(tmp_path, cache_dir=str(tmp_path / "cache"))


def test_bad_places_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs data.root=DIR"):
        load_faces(DataSpec(name="recordio"))
    with pytest.raises(DataError, match="is missing"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no train\.rec"):
        load(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"no records at all")
    with pytest.raises(DataError, match="holds no image") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_bytes_of_a_file_are_found_across_blocks_and_a_file_that_shrinks_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 10 + MAGIC + b"end")
    data = open_bytes(path)
    for size in range(4, 40):
        monkeypatch.setattr("ffem_jax.data.file_bytes.BLOCK_BYTES", size)
        assert data.find(MAGIC, 0) == 30
        assert data.find(b"none", 0) == -1
    path.write_bytes(b"abc")
    assert (data[0:10], data[20:30], data.find(MAGIC, 0)) == (b"abc", b"", -1)


def test_a_record_file_that_shrinks_while_it_is_read_costs_no_more_than_its_images(tmp_path: Path) -> None:
    write_recordio(tmp_path)
    path = tmp_path / "train.rec"
    source = RecordSource(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    source.reader.read(source.addresses[0])
    with pytest.raises(RecordError, match="the file ends in it"):
        source.reader.read(source.addresses[-1])


def test_a_disk_that_goes_away_is_one_line_or_leaves_the_images_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recordio(tmp_path)
    read, read_image, calls = os.pread, RecordReader.read, iter(range(100))

    def fail(*arguments: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    def fail_once(reader: RecordReader, address: np.ndarray) -> bytes:
        return fail() if next(calls) == 2 else read_image(reader, address)

    monkeypatch.setattr("ffem_jax.data.file_bytes.os.pread", fail)
    with pytest.raises(DataError, match=r"cannot be read \(Input/output error\)"):
        load(tmp_path)
    monkeypatch.setattr("ffem_jax.data.file_bytes.os.pread", read)
    monkeypatch.setattr(RecordReader, "read", fail_once)
    faces = load(tmp_path)
    assert faces.unread == ("0/00000003",)
    assert len(faces.names) == 11
