"""A folder of people's folders: every picture is found or named, and one name is one person."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_folders import make_picture, write_people

from ffem_jax.data import DataError, cache, load_faces
from ffem_jax.data.folder import ENDINGS, KINDS
from ffem_jax.data.listing import NAMED_AT_MOST, list_names, list_people
from ffem_jax.serve.names import normalize_name
from ffem_jax.specs.trial import DataSpec
from ffem_jax.text.names import decode_file_name, find_name, index_names, tidy_name

NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


def load(root: Path, **options):
    """As a new process does: with nothing in memory."""
    cache._recent.clear()
    return load_faces(DataSpec(name="folder", root=str(root), **{"resolution": 16, "min_images": 1, **options}))


@pytest.fixture
def root(tmp_path) -> Path:
    return write_people(tmp_path / "faces", {"ann": 3, "bob": 3}, "png")


# -------------------------------------------------------------------------------- what is passed over


def test_sub_folders_are_named_with_their_pictures(root):
    for folder, number in (("2019", 1), ("2020", 2), ("2020/more", 3)):
        (root / "ann" / folder).mkdir()
        make_picture(number).save(root / "ann" / folder / f"{number}.png")
    (root / "ann" / "2019" / "notes.txt").write_text("no picture")
    (root / "bob" / "link").symlink_to(root / "ann")
    (note,) = load(root).notes
    assert "sub-folders (3, with 9 images): ann/2019 (1), ann/2020 (2), bob/link (6); move" in note


def test_links_to_nothing_are_named_and_links_to_pictures_are_pictures(root):
    for person, link, target in (
        ("ann", "dead.png", "../.git/annex/x"), ("ann", "loop.png", "loop.png"), (".", "gone", "nowhere"),
        ("bob", "through.png", "bob_0001.png/x"),
    ):  # fmt: skip
        (root / person / link).symlink_to(target)
    (root / "bob" / "live.png").symlink_to(root / "ann" / "ann_0001.png")
    faces = load(root)
    assert "bob/live.png" in faces.names
    assert faces.notes == ("skipped broken links (4): gone, ann/dead.png, ann/loop.png, bob/through.png",)


def test_what_is_neither_file_nor_folder_is_named_and_never_opened(root):
    os.mkfifo(root / "ann" / "pipe.png")  # opened it would wait for a writer for ever
    os.mkfifo(root / "pipe")
    here = os.getcwd()
    try:
        os.chdir(root / "bob")  # a socket's path has a hundred letters at most
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
    finally:
        os.chdir(here)
    (note,) = load(root).notes
    assert note == "skipped entries that are neither file nor folder (3): pipe, ann/pipe.png, bob/socket.png"


def test_pictures_beside_the_people_and_a_table_of_another_name_are_named(root):
    make_picture(1).save(root / "loose.JPEG")
    (root / "readme.txt").write_text("of no person")
    (root / "Attributes.CSV").write_text("path,age\nann/ann_0001.png,3\n")
    faces = load(root)
    assert faces.attributes == {}
    assert [note.split(";")[0] for note in faces.notes] == [
        "skipped images beside the people's folders (1): loose.JPEG",
        "skipped Attributes.CSV: the table of attributes must be named attributes.csv",
    ]


def test_hidden_things_are_counted(root):
    (root / ".cache").mkdir()
    (root / "ann" / ".thumbs").mkdir()
    for name in (".DS_Store", "._ann_0001.png"):
        (root / "ann" / name).write_bytes(b"what a Mac leaves")
    (root / ".faces.lock").write_text("")  # the root's own files are nobody's pictures
    (note,) = load(root).notes
    assert note.endswith("hidden files (2), hidden folders (2)")


def test_an_empty_picture_is_said_to_be_empty_and_no_address_is_in_a_note(root):
    (root / "ann" / "empty.png").write_bytes(b"")
    (root / "ann" / "page.png").write_bytes(b"<html>404</html>")
    assert load(root).notes == (
        "skipped ann/empty.png: the file is empty", "skipped ann/page.png: unknown format",
    )  # fmt: skip


def test_many_are_named_a_few_and_counted_all(root):
    for number in range(50):
        (root / "ann" / f"dead{number:02d}.png").symlink_to("nowhere")
        (root / "bob" / f"broken{number:02d}.png").write_bytes(b"?")
    notes = load(root).notes
    assert "(50): ann/dead00.png, " in notes[0]
    assert notes[0].endswith(f"and {50 - NAMED_AT_MOST} more")
    assert len(notes) == 2 + NAMED_AT_MOST
    assert notes[-1] == f"skipped {50 - NAMED_AT_MOST} more unreadable images"


def test_a_folder_that_cannot_be_listed_is_named_and_forgotten_once_it_can(root, monkeypatch):
    write_people(root, {"cy": 2}, "png", seed=50)
    whole = load(root)
    real = os.scandir

    def refuse(path):
        if Path(path).name == "cy":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        faces = load(root)
    assert faces.people == ("ann", "bob")
    assert faces.unread == ("cy",)
    assert faces.notes == ("could not be accessed this time (1): cy (Permission denied)",)
    assert load(root).fingerprint == whole.fingerprint
    assert load(root).notes == ()


@pytest.mark.parametrize("kind", ["sub-folder", "dead links"])
def test_without_any_picture_the_error_says_what_there_is(tmp_path, kind):
    (tmp_path / "ann").mkdir()
    if kind == "sub-folder":
        write_people(tmp_path / "ann", {"2019": 2})
    else:
        (tmp_path / "ann" / "1.png").symlink_to("nowhere")
    told = {"sub-folder": r"ann/2019 \(2\)", "dead links": "ann/1.png"}[kind]
    with pytest.raises(DataError, match=f"has no image in its 1 folders .*{told}"):
        load(tmp_path)


ENTRIES = st.sampled_from(["picture", "file", "hidden", "folder", "dead", "fifo"])
STEMS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/."), min_size=1, max_size=8)


@given(st.dictionaries(STEMS, st.dictionaries(STEMS, ENTRIES, max_size=6), min_size=1, max_size=4))
def test_nothing_is_dropped(people):
    root = Path(tempfile.mkdtemp())
    try:
        counts = dict.fromkeys(("picture", "file", "hidden", "folder", "dead", "fifo"), 0)
        for person, entries in people.items():
            (root / person).mkdir()
            for stem, kind in entries.items():
                counts[kind] += 1
                make_entry(root / person, stem, kind)
        listing = list_people(root, ENDINGS, KINDS)
        assert len(listing.pictures) == counts["picture"] == len(set(listing.names))
        assert listing.folders == len(people)
        assert {picture.person for picture in listing.pictures} <= {tidy_name(person) or person for person in people}
        notes = "\n".join(listing.notes)
        for kind, told in (
            ("folder", "sub-folders ({}, with {} images)"), ("dead", "broken links ({})"), ("fifo", "folder ({})"),
            ("file", ".txt ({})"), ("hidden", "hidden files ({})"),
        ):  # fmt: skip
            assert (told.format(counts[kind], counts[kind]) in notes) == (counts[kind] > 0)
        assert len(listing.notes) == len(notes.splitlines())
    finally:
        shutil.rmtree(root)


def make_entry(folder: Path, stem: str, kind: str) -> None:
    if kind in ("picture", "file", "hidden"):
        ending = ".txt" if kind == "file" else ".PNG"
        (folder / f"{'.' if kind == 'hidden' else ''}{stem}{ending}").write_bytes(b"")
    elif kind == "folder":
        (folder / stem).mkdir()
        (folder / stem / "inside.jpg").write_bytes(b"")
    elif kind == "dead":
        (folder / stem).symlink_to("nowhere/at/all")
    else:
        os.mkfifo(folder / stem)


# ---------------------------------------------------------------------------------- who is who


def test_one_name_in_two_normal_forms_is_one_person(tmp_path):
    write_people(tmp_path, {"ann": 2}, "png")
    for seed, (folder, name) in enumerate([(NFC, "1"), (NFC, "2"), (NFD, "1"), (NFD, "3")], 10):
        (tmp_path / folder).mkdir(exist_ok=True)
        make_picture(seed, (40, 40)).save(tmp_path / folder / f"{name}.png")
    faces = load(tmp_path)
    assert faces.people == ("José", "ann")
    assert faces.people[0] == normalize_name(NFD) == NFC
    assert np.bincount(faces.labels).tolist() == [4, 2]
    assert len(set(faces.names)) == len(set(faces.content)) == 6  # both files called 1.png are there
    assert all((tmp_path / name).is_file() for name in faces.names)
    assert faces.notes == (r"folders merged into one person: José is 'Jose\u0301' and 'Jos\xe9'",)


def test_the_spaces_of_a_name_make_no_second_person(tmp_path):
    write_people(tmp_path, {"Ann Lee": 1, "Ann  Lee": 1, " Ann Lee": 1, "bob": 1}, "png")
    faces = load(tmp_path)
    assert faces.people == ("Ann Lee", "bob")
    assert "Ann Lee is ' Ann Lee' and 'Ann  Lee' and 'Ann Lee'" in faces.notes[0]


def test_both_spellings_count_for_how_many_images_somebody_has(tmp_path):
    write_people(tmp_path, {NFC: 2, NFD: 2, "ann": 3, "bob": 3}, "png")
    faces = load(tmp_path, people=2)
    assert faces.people == ("José", "ann")  # with four; of those with three the first
    assert load(tmp_path, max_images=3, min_images=3).people == ("José", "ann", "bob")


def write_latin(root: Path) -> bytes:
    """A person's folder and a picture whose names are Latin-1."""
    folder = os.fsencode(root) + b"/Jos\xe9"
    os.mkdir(folder)
    with open(folder + b"/f\xfc.png", "wb") as file:
        make_picture(77, (40, 40)).save(file, "PNG")
    return folder


def test_names_that_are_no_utf8_are_loaded_shown_and_said(root):
    write_latin(root)
    for faces in (load(root), load(root)):  # decoded, then cached
        assert faces.people == (r"Jos\xe9", "ann", "bob")
        assert faces.names[0] == r"Jos\xe9/f\xfc.png"
        "\n".join([*faces.people, *faces.names, *faces.notes]).encode("utf-8")
        (note,) = faces.notes
        assert "not UTF-8 (2)" in note
        assert r": Jos\xe9, Jos\xe9/f\xfc.png;" in note


def test_a_name_in_latin1_beside_the_same_in_utf8_is_said(root):
    write_latin(root)
    write_people(root, {NFC: 1}, "png", seed=40)
    faces = load(root)
    assert len(faces.people) == 4
    assert r"Jos\xe9 may be José in Latin-1; they are kept as two people" in faces.notes


def test_two_names_that_are_shown_alike_are_refused(root):
    folder = write_latin(root)
    with open(folder + rb"/f\xfc.png", "wb") as file:
        make_picture(78, (40, 40)).save(file, "PNG")
    with pytest.raises(DataError, match="2 images have the printable name"):
        load(root)


def test_people_have_one_order_in_every_locale(root):
    write_people(root, {NFC: 1, "李": 1, "zoe": 1}, "png", seed=40)
    write_latin(root)
    here = load(root)
    program = (
        "import sys\nfrom ffem_jax.data import load_faces\nfrom ffem_jax.specs.trial import DataSpec\n"
        "assert sys.getfilesystemencoding() == 'ascii'\n"
        "faces = load_faces(DataSpec(name='folder', root=sys.argv[1], resolution=16, min_images=1))\n"
        "print(faces.fingerprint, ascii(faces.people))\n"
    )
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{here.fingerprint} {here.people!a}\n", done.stderr


@given(st.text(max_size=20))
def test_a_tidied_name_is_tidy_in_whatever_form_it_came(name):
    tidied = tidy_name(name)
    assert tidy_name(tidied) == tidied
    assert tidy_name(f"  {unicodedata.normalize('NFD', name)} ") == tidied


@given(st.binary(max_size=20))
def test_every_file_name_is_text_that_can_be_written(name):
    shown = decode_file_name(os.fsdecode(name))
    shown.encode("utf-8")
    list_names([shown]).encode("utf-8")


def test_a_name_is_found_as_it_is_before_it_is_found_in_nfc():
    index = index_names([NFD, NFC, "ann"])
    assert [find_name(name, index) for name in (NFD, NFC, "ann", "bob")] == [0, 1, 2, None]
    assert find_name(NFC, index_names([NFD])) == find_name(NFD, index_names([NFC])) == 0
