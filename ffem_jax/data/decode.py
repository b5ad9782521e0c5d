"""Pictures to square uint8 faces: decoding anything a camera or a phone writes, the choice of people."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ffem_jax.data import Faces
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.spec import DataSpec

# More than any phone's full frame of today needs; a 100 kB file can claim more and fill the memory.
MAX_PIXELS = 120_000_000
NAMED_AT_MOST = 20


class PictureError(ValueError):
    """A file that is no readable picture. The message says why, in a few words."""


@dataclass(frozen=True)
class Picture:
    """A picture not yet decoded. name: its path, `person/file`; read: returns the file's bytes."""

    person: str
    name: str
    read: Callable[[], bytes]


def decode_picture(data: bytes) -> Image.Image:
    """An encoded picture as 8-bit RGB, upright.

    EXIF orientation is applied, 16-bit grey is scaled down, transparency is laid over mid grey, of an animation
    the first frame is taken. Raises PictureError for anything that cannot be read whole.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning, lower than MAX_PIXELS, and odd metadata
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"{image.width} x {image.height} pixels is more than {MAX_PIXELS:,}")
            image.load()
            return _convert_to_rgb(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise almost every built-in type on damaged input
        raise PictureError(" ".join(str(error).split()) or type(error).__name__) from error


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey (PNG, PGM); Pillow's own conversion clips it to white.
        grey = np.asarray(image).astype(np.float64) / 257.0
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backdrop, image)
    return image.convert("RGB")


def hash_picture(image: Image.Image) -> str:
    """16 hexadecimal digits over a picture's pixels before the crop: blind to file format and metadata."""
    digest = hashlib.sha256(repr(image.size).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def select_people(images: dict[str, int], spec: DataSpec) -> list[str]:
    """Who stays of `images` (person -> number of images), sorted by name.

    Those with at least `spec.min_images`; of these the `spec.people` with the most images, ties by name.
    """
    enough = [person for person, count in images.items() if count >= spec.min_images]
    ranked = sorted(enough, key=lambda person: (-images[person], person))
    return sorted(ranked[: spec.people or None])


def decode_faces(pictures: Iterable[Picture], total: int, spec: DataSpec) -> Faces:
    """Decode `pictures` (at most `total`, grouped and sorted as they are to stay) and choose the people.

    A picture that cannot be read is named in the notes and skipped, a person with fewer than `spec.min_images`
    readable ones is named and left out. Draws a progress bar on a terminal's standard error.
    """
    images = np.empty((total, spec.resolution, spec.resolution, 3), np.uint8)
    kept: list[Picture] = []
    content: list[str] = []
    readable: Counter[str] = Counter()
    notes: list[str] = []
    for picture in tqdm(pictures, total=total, desc="decoding faces", unit="image", disable=None, leave=False):
        readable.setdefault(picture.person, 0)
        try:
            image = decode_picture(picture.read())
        except (PictureError, OSError) as error:
            notes.append(f"skipped {picture.name}: {error}")
            continue
        images[len(kept)] = crop_face(image, spec.crop, spec.resolution)
        kept.append(picture)
        content.append(hash_picture(image))
        readable[picture.person] += 1
    few = [f"{person} ({count})" for person, count in sorted(readable.items()) if count < spec.min_images]
    if few:
        notes.append(f"left out, with fewer than data.min_images={spec.min_images} readable images: {list_names(few)}")
    people = tuple(select_people(readable, spec))
    return _keep(people, kept, content, images, spec.max_images, tuple(notes))


def _keep(
    people: tuple[str, ...],
    pictures: list[Picture],
    content: list[str],
    images: np.ndarray,
    max_images: int,
    notes: tuple[str, ...],
) -> Faces:
    label_of = {person: label for label, person in enumerate(people)}
    taken: Counter[str] = Counter()
    rows = []
    for row, picture in enumerate(pictures):
        if picture.person in label_of and (not max_images or taken[picture.person] < max_images):
            taken[picture.person] += 1
            rows.append(row)
    return Faces(
        images=images[: len(pictures)] if len(rows) == len(pictures) else images[rows],
        labels=np.array([label_of[pictures[row].person] for row in rows], np.int32),
        people=people,
        names=tuple(pictures[row].name for row in rows),
        content=tuple(content[row] for row in rows),
        notes=notes,
    )


def list_names(names: Sequence[str]) -> str:
    """Names with commas, the first `NAMED_AT_MOST` of them and then how many more."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")


def read_attributes(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The columns of the CSV file `path`, if it exists, for the images `names`, and notes on what is wrong with it.

    The column `path` says which image (`person/file`); each other column becomes an array [image]: float64 with
    NaN where empty if all of it reads as numbers, text with "" where empty otherwise.
    """
    if not names or not path.exists():
        return {}, ()
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            columns = [column for column in reader.fieldnames or () if column]
            if "path" not in columns:
                return {}, (f"{path.name} ignored: its first line names no column `path`",)
            rows = {(row["path"] or "").replace("\\", "/").removeprefix("./"): row for row in reader}
    except (OSError, csv.Error) as error:
        return {}, (f"{path.name} ignored: {error}",)
    known = [rows.get(name, {}) for name in names]
    if not any(known):
        return {}, (f"{path.name} ignored: its column `path` names none of the images, such as {names[0]}",)
    columns.remove("path")
    return {column: _parse_column([(row.get(column) or "").strip() for row in known]) for column in columns}, ()


def _parse_column(values: list[str]) -> np.ndarray:
    try:
        return np.array([float(value) if value else np.nan for value in values], np.float64)
    except ValueError:
        return np.array(values)
