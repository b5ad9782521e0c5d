"""A folder of people's photographs to a folder of aligned faces, with a list of what became of each photograph.

`OUT/faces.csv` has a row for each photograph, appended as it is done and flushed, so that a run that was stopped goes
on where it was; `OUT/to_check.csv` has those rows that a person should look at.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from PIL.Image import Image

from ffem_jax.align.detector import DetectedFace, Detector
from ffem_jax.align.geometry import align_face
from ffem_jax.data.cache import stat_files
from ffem_jax.data.decode import PictureError, decode_picture
from ffem_jax.data.folder import list_pictures
from ffem_jax.data.listing import Listing, PictureFile
from ffem_jax.errors import FfemError
from ffem_jax.text.progress import track

LIST_NAME, TO_CHECK_NAME = "faces.csv", "to_check.csv"

# What to do with a photograph of several faces.
SEVERAL = ("largest", "central", "skip")

ALIGNED, NO_FACE, SEVERAL_FACES, UNREADABLE = "aligned", "no_face", "several_faces", "unreadable"


class AlignError(FfemError):
    """A folder that cannot be aligned. The message is one line and says what to do."""


@dataclass(frozen=True)
class Settings:
    """What decides an aligned face, beside the photograph.

    Args:
        side: of the face, in pixels.
        several: one of `SEVERAL`.
        detector: the detector's name and version.
    """

    side: int
    several: str
    detector: str

    def __str__(self) -> str:
        return f"{self.detector} side={self.side} several={self.several}"


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph: a row of the list.

    The eyes are in pixels of the upright photograph, the image's left one first. `size_bytes` to `inode` are what the
    photograph and the settings were, so that a change is seen. An inode of 0, as of a photograph that could not be read
    or changed meanwhile, says that this is not known, and it is done again.

    Args:
        path: `person/file` below the folder, a byte that is no UTF-8 as \\xNN.
        status: aligned, no_face, several_faces (and skipped) or unreadable.
        output: the face below OUT, where there is one.
        faces: how many were found.
        reason: why it could not be read.
        score: the detector's, of the face kept.
    """

    path: str
    status: str
    output: str = ""
    faces: int = 0
    left_eye_x: float | None = None
    left_eye_y: float | None = None
    right_eye_x: float | None = None
    right_eye_y: float | None = None
    score: float | None = None
    reason: str = ""
    size_bytes: int = 0
    modified_ns: int = 0
    settings: str = ""
    changed_ns: int = 0
    inode: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether there was one face and it was aligned: nothing to look at."""
        return self.status == ALIGNED and self.faces == 1


FIELDS = tuple(field.name for field in dataclasses.fields(Outcome))


# What a photograph and the settings must agree in for what became of it to hold.
DECIDING = ("size_bytes", "modified_ns", "changed_ns", "inode", "settings")


def _parse_number(text: str) -> float | None:
    return float(text) if text else None


# Name of a field -> text of a list to its value.
PARSE: dict[str, Callable[[str], Any]] = {
    field.name: {"str": str, "int": int}.get(str(field.type), _parse_number) for field in dataclasses.fields(Outcome)
}


@dataclass(frozen=True)
class Alignment:
    """What a run did. outcomes: of every photograph of the folder, in order; kept: how many were done before."""

    outcomes: tuple[Outcome, ...]
    kept: int
    notes: tuple[str, ...]

    def count(self) -> dict[str, int]:
        """Photographs by status; each status is there, if with 0."""
        counted = Counter(outcome.status for outcome in self.outcomes)
        return {status: counted[status] for status in (ALIGNED, NO_FACE, SEVERAL_FACES, UNREADABLE)}


def align_folder(root: Path, out: Path, settings: Settings, detect: Detector) -> Alignment:
    """Align the face of every photograph `root/person/file` into `out/person/file.png`, but those done before.

    A photograph that cannot be read is listed and the rest goes on. Draws a progress bar on a terminal's standard
    error.

    Args:
        root: the folder of the people's folders.
        out: where faces and list are written.
        settings: what decides an aligned face.
        detect: finds the faces of a photograph.

    Raises:
        AlignError: the folders lie in one another, or another process writes `out`.
        DataError: `root` holds no photographs of people.
        OSError: a file cannot be written.
    """
    root, out = root.expanduser().resolve(), out.expanduser().resolve()
    if not root.is_dir():
        raise AlignError(
            f"{root} is {'no folder' if root.exists() else 'not there'}; give a folder of people's folders"
        )
    if root == out or root in out.parents or out in root.parents:
        raise AlignError(f"{out} and {root} lie in one another; choose another folder for the faces")
    listing = list_pictures(root, str(root))
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".faces.lock", timeout=0):
            alignment = _align_all(listing, out, settings, detect)
    except Timeout:
        raise AlignError(f"{out} is being written by another ffem align; wait, or choose another folder") from None
    return dataclasses.replace(alignment, notes=(*listing.notes, *alignment.notes))


def _align_all(listing: Listing, out: Path, settings: Settings, detect: Detector) -> Alignment:
    done = {outcome.path: outcome for outcome in read_outcomes(out / LIST_NAME)}
    write_outcomes(out / LIST_NAME, done.values())  # whole lines only, before more are added
    outcomes = []
    kept = 0
    with open(out / LIST_NAME, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        for photograph in track(listing.pictures, "aligning"):
            asked = _describe(photograph, settings)
            outcome = done.get(asked.path)
            if outcome and _is_done(outcome, asked, out):
                kept += 1
            else:
                outcome = _align_one(photograph, asked, out, settings, detect)
                writer.writerow(dataclasses.asdict(outcome))
                file.flush()
            outcomes.append(outcome)
    there = {outcome.path for outcome in outcomes}
    gone = [outcome for name, outcome in done.items() if name not in there]
    hidden = {*listing.unread}  # photographs, and folders of them, that may well be there
    write_outcomes(out / LIST_NAME, sorted([*outcomes, *gone], key=lambda outcome: outcome.path))
    write_outcomes(out / TO_CHECK_NAME, [outcome for outcome in outcomes if not outcome.is_plain])
    left = sum(bool(outcome.output) and not hidden & {outcome.path, outcome.path.split("/")[0]} for outcome in gone)
    notes = [f"{left} faces in {out} are of photographs that are not there any more; delete them if they should go"]
    return Alignment(tuple(outcomes), kept, tuple(notes) if left else ())


def _describe(photograph: PictureFile, settings: Settings) -> Outcome:
    """The photograph as it is now, not looked into: what an outcome must agree with to hold."""
    ((_, size_bytes, modified_ns, changed_ns, inode),) = stat_files([photograph.path])
    return Outcome(
        photograph.name,
        UNREADABLE,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        settings=str(settings),
        changed_ns=changed_ns,
        inode=inode,
    )


def _is_done(outcome: Outcome, asked: Outcome, out: Path) -> bool:
    same = all(getattr(outcome, name) == getattr(asked, name) for name in DECIDING)
    return same and outcome.inode > 0 and (not outcome.output or _holds_something(out / outcome.output))


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _align_one(photograph: PictureFile, asked: Outcome, out: Path, settings: Settings, detect: Detector) -> Outcome:
    """What becomes of the photograph, with an inode of 0 if it could not be read this time or changed meanwhile."""
    # The ending stays in the name: a.jpg and a.png of one person are two faces.
    output = f"{asked.path}.png"
    try:
        image = decode_picture(photograph.path.read_bytes())
    except PictureError as error:
        outcome = dataclasses.replace(asked, reason=str(error))
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        outcome = dataclasses.replace(asked, reason=f"{reason}, to be tried again", inode=0)
    else:
        outcome = _align_picture(image, dataclasses.replace(asked, output=output), out, settings, detect)
    if not outcome.output:
        (out / output).unlink(missing_ok=True)  # of an earlier run
    return outcome if _describe(photograph, settings) == asked else dataclasses.replace(outcome, inode=0)


def _align_picture(image: Image, asked: Outcome, out: Path, settings: Settings, detect: Detector) -> Outcome:
    faces = detect(image)
    face = choose_face(faces, image.size, settings.several)
    if face is None:
        return dataclasses.replace(asked, output="", status=SEVERAL_FACES if faces else NO_FACE, faces=len(faces))
    with _replace(out / asked.output) as file:
        align_face(image, face.eyes, settings.side).save(file, "PNG")
    (left_x, left_y), (right_x, right_y) = face.eyes
    return dataclasses.replace(
        asked,
        status=ALIGNED,
        faces=len(faces),
        left_eye_x=round(left_x, 2),
        left_eye_y=round(left_y, 2),
        right_eye_x=round(right_x, 2),
        right_eye_y=round(right_y, 2),
        score=round(face.score, 4),
    )


def choose_face(faces: Sequence[DetectedFace], size: tuple[int, int], several: str) -> DetectedFace | None:
    """The face to keep of a photograph, or None for none and for several to be skipped.

    Args:
        faces: that were found.
        size: (width, height) of the photograph, in pixels.
        several: `largest` keeps that with the eyes furthest apart, `central` that nearest to the photograph's middle.
    """
    if not faces or (len(faces) > 1 and several == "skip"):
        return None
    if several == "central":
        return min(faces, key=lambda face: abs(face.middle - complex(*size) / 2))
    return max(faces, key=lambda face: face.eye_distance)


@contextlib.contextmanager
def _replace(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path`, renamed to it at the end: a stopped run leaves no half file under that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # one writer at a time: the lock sees to it
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the list `path` anew, whole or not at all."""
    with _replace(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as text:
        writer = csv.DictWriter(text, FIELDS)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(outcome) for outcome in outcomes)


def read_outcomes(path: Path) -> list[Outcome]:
    """The rows of a list, or none where there is no list.

    What is no row (a kill cut it off) is passed over. A column that an older release did not write has its default.
    """
    outcomes = []
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            there = [name for name in FIELDS if name in (reader.fieldnames or ())]
            for row in reader:
                with contextlib.suppress(TypeError, ValueError):
                    outcomes.append(Outcome(**{name: PARSE[name](row[name]) for name in there}))
    except FileNotFoundError:
        return []
    except csv.Error as error:
        raise AlignError(f"{path} is damaged ({error}); delete it, and all photographs are aligned again") from None
    return outcomes
