"""A folder of photographs aligned, with a detector that finds coloured discs: what is kept, listed and done again."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_photographs import FindDiscs, draw_photograph, write_photographs
from PIL import Image

from ffem_jax.align import photographs
from ffem_jax.align.detector import DetectedFace
from ffem_jax.align.geometry import EYES
from ffem_jax.align.photographs import (
    AlignError,
    Outcome,
    Settings,
    align_folder,
    choose_face,
    read_outcomes,
    write_outcomes,
)
from ffem_jax.data import DataError, load_faces
from ffem_jax.specs.trial import DataSpec

SETTINGS = Settings(side=70, several="largest", detector="discs 1")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photographs")


def by_path(outcomes: list[Outcome] | tuple[Outcome, ...]) -> dict[str, Outcome]:
    return {outcome.path: outcome for outcome in outcomes}


def test_each_photograph_is_aligned_or_listed(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    alignment = align_folder(people, out, SETTINGS, FindDiscs())
    assert alignment.count() == {"aligned": 7, "no_face": 1, "several_faces": 0, "unreadable": 1}
    assert alignment.kept == 0
    assert [note for note in alignment.notes if ".txt (1)" in note]
    found = by_path(alignment.outcomes)
    assert found["ann/none.png"].status == "no_face"
    assert found["bob/broken.png"].status == "unreadable"
    assert found["bob/broken.png"].reason
    two = found["bob/two.JPG"]
    assert (two.status, two.faces, two.output) == ("aligned", 2, "bob/two.JPG.png")
    assert (two.left_eye_x, two.right_eye_x) == pytest.approx((145, 195), abs=1.5)
    assert read_outcomes(out / "faces.csv") == list(alignment.outcomes)
    with open(out / "to_check.csv", newline="") as file:
        to_check = [row["path"] for row in csv.DictReader(file)]
    assert to_check == ["ann/none.png", "bob/broken.png", "bob/two.JPG"]
    for outcome in alignment.outcomes:
        if outcome.output:
            face = np.asarray(Image.open(out / outcome.output)).astype(int)
            assert face.shape == (70, 70, 3)
            for colour, (x, y) in zip((0, 2), EYES, strict=True):
                assert face[int(70 * y), int(70 * x), colour] > 200


def test_the_result_is_a_folder_of_people(people: Path, tmp_path: Path) -> None:
    align_folder(people, tmp_path / "faces", SETTINGS, FindDiscs())
    faces = load_faces(DataSpec(name="folder", root=str(tmp_path / "faces"), resolution=70))
    assert faces.people == ("ann", "bob")
    assert len(faces.names) == 7
    assert faces.notes == ()
    np.testing.assert_array_equal(faces.images[0], np.asarray(Image.open(tmp_path / "faces" / faces.names[0])))


def test_started_again_it_looks_at_nothing_twice(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    first = align_folder(people, out, SETTINGS, FindDiscs())
    stamp = (out / "ann" / "0.png.png").stat().st_mtime_ns
    detector = FindDiscs()
    again = align_folder(people, out, SETTINGS, detector)
    assert (detector.asked, again.kept) == (0, 9)
    assert again.outcomes == first.outcomes
    assert (out / "ann" / "0.png.png").stat().st_mtime_ns == stamp


def test_what_changed_is_done_again_and_only_that(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    align_folder(people, out, SETTINGS, FindDiscs())
    draw_photograph(people / "ann" / "0.png")  # the face is gone
    (out / "ann" / "1.png.png").unlink()
    draw_photograph(people / "bob" / "new.png", (100, 100, 50))
    (people / "bob" / "1.png").unlink()
    detector = FindDiscs()
    again = align_folder(people, out, SETTINGS, detector)
    assert (detector.asked, again.kept) == (3, 6)
    assert by_path(again.outcomes)["ann/0.png"].status == "no_face"
    assert not (out / "ann" / "0.png.png").exists(), "a face of a photograph that shows none any more"
    assert (out / "ann" / "1.png.png").exists()
    assert (out / "bob" / "new.png.png").exists()
    # Of what was deleted the face stays, and is named.
    assert (out / "bob" / "1.png.png").exists()
    assert [note for note in again.notes if note.startswith("1 faces")]


def test_other_settings_are_other_faces(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    align_folder(people, out, SETTINGS, FindDiscs())
    skipping = align_folder(people, out, Settings(70, "skip", "discs 1"), FindDiscs())
    assert skipping.kept == 0
    assert by_path(skipping.outcomes)["bob/two.JPG"].status == "several_faces"
    assert not (out / "bob" / "two.JPG.png").exists()


def test_a_torn_list_costs_its_last_line_alone(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    first = align_folder(people, out, SETTINGS, FindDiscs())
    whole = (out / "faces.csv").read_bytes()
    last = whole.rstrip().rfind(b"\n") + 1
    for end in range(last, len(whole), 7):
        (out / "faces.csv").write_bytes(whole[:end])
        again = align_folder(people, out, SETTINGS, FindDiscs())
        assert again.outcomes == first.outcomes
        assert again.kept >= 8
        assert (out / "faces.csv").read_bytes() == whole


def test_killed_it_goes_on_where_it_was(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    script = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_photographs import FindDiscs, SETTINGS, align_folder\n"
        "class Slow(FindDiscs):\n"
        "    def __call__(self, image):\n"
        "        if self.asked == 3: time.sleep(600)\n"
        "        return super().__call__(image)\n"
        f"align_folder(Path({str(people)!r}), Path({str(out)!r}), SETTINGS, Slow())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(read_outcomes(out / "faces.csv")) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    again = align_folder(people, out, SETTINGS, FindDiscs())
    assert again.kept == 3
    assert again.count()["aligned"] == 7
    assert not list(out.rglob("*.part"))


def test_two_at_once_do_not_write_one_folder(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"

    class Second(FindDiscs):
        def __call__(self, image: Image.Image) -> list[DetectedFace]:
            with pytest.raises(AlignError, match="being written by another"):
                align_folder(people, out, SETTINGS, FindDiscs())
            return super().__call__(image)

    assert align_folder(people, out, SETTINGS, Second()).count()["aligned"] == 7


@pytest.mark.parametrize(("root", "out"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_folders_in_one_another_are_refused(tmp_path: Path, root: str, out: str) -> None:
    draw_photograph(tmp_path / root / "ann" / "1.png", (100, 80, 40))
    with pytest.raises(AlignError, match="in one another"):
        align_folder(tmp_path / root, tmp_path / out, SETTINGS, FindDiscs())


def test_a_folder_without_people_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="not there"):
        align_folder(tmp_path / "nowhere", tmp_path / "out", SETTINGS, FindDiscs())
    (tmp_path / "file").write_text("")
    with pytest.raises(AlignError, match="no folder"):
        align_folder(tmp_path / "file", tmp_path / "out", SETTINGS, FindDiscs())
    draw_photograph(tmp_path / "loose" / "1.png", (100, 80, 40))
    with pytest.raises(DataError, match="has 1 images but no folders"):
        align_folder(tmp_path / "loose", tmp_path / "out", SETTINGS, FindDiscs())


# ------------------------------------------------------------------- what a list may be trusted for


def test_exchanged_photographs_of_equal_size_and_time_are_aligned_again(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    first, second = people / "ann" / "one.pgm", people / "bob" / "one.pgm"  # not compressed, so of one size
    draw_photograph(first, (60, 80, 40))
    draw_photograph(second, (150, 80, 40))
    for path in (first, second):
        os.utime(path, ns=(1, 1))
    before = by_path(align_folder(people, out, SETTINGS, FindDiscs()).outcomes)
    first.rename(people / "third")
    second.rename(first)
    (people / "third").rename(second)
    detector = FindDiscs()
    after = align_folder(people, out, SETTINGS, detector)
    assert (detector.asked, after.kept) == (2, len(before) - 2)
    assert by_path(after.outcomes)["ann/one.pgm"].left_eye_x == before["bob/one.pgm"].left_eye_x


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()], ids=["disk", "memory"])
def test_a_photograph_that_cannot_be_read_now_is_tried_again(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    out = tmp_path / "faces"
    real = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "1.png":
            raise error
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        alignment = align_folder(people, out, SETTINGS, FindDiscs())
    assert alignment.count()["unreadable"] == 3
    outcome = by_path(alignment.outcomes)["ann/1.png"]
    assert outcome.reason == f"{getattr(error, 'strerror', 'MemoryError')}, to be tried again"
    again = align_folder(people, out, SETTINGS, FindDiscs())
    assert (again.kept, again.count()["aligned"], again.count()["unreadable"]) == (7, 7, 1)
    assert align_folder(people, out, SETTINGS, FindDiscs()).kept == 9  # the broken one is broken


def test_a_photograph_that_changes_while_it_is_looked_at_is_looked_at_again(people: Path, tmp_path: Path) -> None:
    class Slow(FindDiscs):
        def __call__(self, image: Image.Image) -> list[DetectedFace]:
            if self.asked == 0:
                draw_photograph(people / "ann" / "0.png")  # the first is replaced while it is being aligned
            return super().__call__(image)

    out = tmp_path / "faces"
    assert by_path(align_folder(people, out, SETTINGS, Slow()).outcomes)["ann/0.png"].status == "aligned"
    again = align_folder(people, out, SETTINGS, FindDiscs())
    assert (again.kept, by_path(again.outcomes)["ann/0.png"].status) == (8, "no_face")


def test_a_list_of_an_older_release_is_read_and_its_photographs_are_aligned_again(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    first = align_folder(people, out, SETTINGS, FindDiscs())
    with open(out / "faces.csv", newline="") as file:
        rows = [row[:-2] for row in csv.reader(file)]  # it had no inode and no time of change
    with open(out / "faces.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    (people / "bob" / "1.png").unlink()
    assert len(read_outcomes(out / "faces.csv")) == 9
    again = align_folder(people, out, SETTINGS, FindDiscs())
    assert again.kept == 0
    assert again.outcomes == tuple(outcome for outcome in first.outcomes if outcome.path != "bob/1.png")
    assert [note for note in again.notes if note.startswith("1 faces")]  # its old rows still say what is gone
    assert align_folder(people, out, SETTINGS, FindDiscs()).kept == 8


def test_an_empty_face_is_made_again(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    align_folder(people, out, SETTINGS, FindDiscs())
    (out / "ann" / "1.png.png").write_bytes(b"")  # what a loss of power leaves
    assert align_folder(people, out, SETTINGS, FindDiscs()).kept == 8
    assert Image.open(out / "ann" / "1.png.png").size == (70, 70)


def test_photographs_that_cannot_be_listed_now_are_not_called_gone(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "faces"
    align_folder(people, out, SETTINGS, FindDiscs())
    real = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path) == people / "ann":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        notes = align_folder(people, out, SETTINGS, FindDiscs()).notes
    assert any("could not be accessed this time (1): ann (Permission denied)" in note for note in notes)
    assert not [note for note in notes if "not there any more" in note]
    assert align_folder(people, out, SETTINGS, FindDiscs()).kept == 9


def test_what_is_passed_over_is_said(people: Path, tmp_path: Path) -> None:
    draw_photograph(people / "ann" / "2019" / "1.png", (100, 80, 40))
    (people / "bob" / "dead.png").symlink_to("nowhere")
    notes = "\n".join(align_folder(people, tmp_path / "faces", SETTINGS, FindDiscs()).notes)
    assert "ann/2019 (1)" in notes
    assert "bob/dead.png" in notes


def test_names_that_are_no_utf8_are_aligned_listed_and_loaded(people: Path, tmp_path: Path) -> None:
    folder = os.fsencode(people) + b"/Jos\xe9"
    os.rename(people / "bob", folder)
    os.rename(folder + b"/0.png", folder + b"/f\xfc.png")
    out = tmp_path / "faces"
    alignment = align_folder(people, out, SETTINGS, FindDiscs())
    assert by_path(alignment.outcomes)[r"Jos\xe9/f\xfc.png"].status == "aligned"
    assert r"Jos\xe9/f\xfc.png" in (out / "faces.csv").read_text(encoding="utf-8")
    assert align_folder(people, out, SETTINGS, FindDiscs()).kept == 9
    faces = load_faces(DataSpec(name="folder", root=str(out), resolution=70))
    assert faces.people == (r"Jos\xe9", "ann")


def make_face(x: float, y: float, distance: float) -> DetectedFace:
    return DetectedFace(eyes=((x - distance / 2, y), (x + distance / 2, y)), score=1.0)


@pytest.mark.parametrize(("several", "kept"), [("largest", 1), ("central", 0), ("skip", None)])
def test_which_of_several_is_kept(several: str, kept: int | None) -> None:
    faces = [make_face(100, 90, 30), make_face(20, 20, 40)]
    chosen = choose_face(faces, (200, 200), several)
    assert chosen is (None if kept is None else faces[kept])
    assert choose_face(faces[:1], (200, 200), several) is faces[0]
    assert choose_face([], (200, 200), several) is None


def test_a_list_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [
        Outcome('an "odd", name/a\nb.jpg', "aligned", "x.png", 2, 1.25, 2.0, 3.5, 4.0, 0.5, "", 7, 8, "s"),
        Outcome("b/c.png", "unreadable", reason="broken, wholly"),
    ]
    write_outcomes(tmp_path / "list.csv", rows)
    assert read_outcomes(tmp_path / "list.csv") == rows
    assert read_outcomes(tmp_path / "missing.csv") == []


def test_the_names_of_the_files_are_those_the_readme_gives() -> None:
    assert (photographs.LIST_NAME, photographs.TO_CHECK_NAME) == ("faces.csv", "to_check.csv")
