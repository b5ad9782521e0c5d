"""Decodes image files of cameras and phones to square uint8 faces, and selects people."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ffem_jax.data import Faces
from ffem_jax.data.listing import NAMED_AT_MOST, list_names
from ffem_jax.data.memory import check_memory
from ffem_jax.data.preprocessing import crop_face, describe_fit
from ffem_jax.errors import FfemError
from ffem_jax.specs.trial import DataSpec
from ffem_jax.text.display import show_unseen
from ffem_jax.text.progress import track

# More than the full frame of any current phone; a 100 kB file can claim more and exhaust memory.
MAX_PIXELS = 120_000_000
# Maximum letters of a reason: each takes at most six bytes of JSON, or twelve outside the Basic Multilingual Plane.
MOST_SAID = 300
# In the form that `warnings.filterwarnings` stores.
_PILLOW_S = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class PictureError(FfemError):
    """A file that is not a readable image. The message says why, in a few words."""


@dataclass(frozen=True)
class Looked:
    """The result of decoding an image.

    Args:
        fault: why it is not an image. unread: why it could not be read this time. Both are empty for an intact image.
        pixels: uint8 [R, R, 3]; None if it is not intact.
        content: its hash, `hash_picture`. square: whether it was square before cropping.
        size: width and height from the file's header, and mode: Pillow's name of its pixel format; (0, 0) and empty
            without a header.
    """

    fault: str = ""
    unread: str = ""
    pixels: np.ndarray | None = None
    content: str = ""
    square: bool = True
    size: tuple[int, int] = (0, 0)
    mode: str = ""


@dataclass(frozen=True)
class Picture:
    """An image to be decoded. name: its path, `folder/file`; look: decodes it."""

    person: str
    name: str
    look: Callable[[], Looked]


def look_at(read: Callable[[], bytes], spec: DataSpec) -> Looked:
    """Decode the image whose file `read` returns, cropped according to `spec`."""
    size, mode = (0, 0), ""
    try:
        data = read()
        silence_pillow()
        with contextlib.suppress(Exception):  # decoding reports a file that is not an image
            head = Image.open(io.BytesIO(data))
            size, mode = head.size, head.mode
        image = decode_picture(data)
    except PictureError as error:
        return Looked(fault=str(error)[:MOST_SAID], size=size, mode=mode)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Looked(unread=reason[:MOST_SAID], size=size, mode=mode)
    pixels = crop_face(image, spec.crop, spec.resolution, spec.fit)
    return Looked("", "", pixels, hash_picture(image), image.width == image.height, size, mode)


def decode_picture(data: bytes) -> Image.Image:
    """Decode an image to upright 8-bit RGB.

    EXIF orientation is applied, 16-bit grey is scaled down, transparency is composited over mid grey, and an animation
    is reduced to its first frame. Raises PictureError for anything incomplete or unreadable, and OSError or MemoryError
    for a failure of the machine.
    """
    silence_pillow()
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise PictureError(f"{image.width} x {image.height} pixels is more than {MAX_PIXELS:,}")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _convert_to_rgb(image)
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError as error:  # its message is a memory address
        raise PictureError("unknown format" if data else "the file is empty") from error
    except Exception as error:  # Pillow's decoders raise almost every built-in type on corrupt input
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the operating system; Pillow's own errors have no errno
        raise PictureError(" ".join(str(error).split()) or type(error).__name__) from error


def silence_pillow() -> None:
    """Ignore Pillow's warnings about sizes below MAX_PIXELS and odd metadata.

    Images are decoded in threads, where `warnings.catch_warnings` restores filters set by other threads: after some
    thousand images every warning of the process would be ignored.
    """
    if _PILLOW_S not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW_S[3].pattern)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey (PNG, PGM); Pillow's own conversion clips it to white.
        grey = np.asarray(image).astype(np.float64) / 257.0
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backdrop, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def hash_picture(image: Image.Image) -> str:
    """Hash an image's pixels before cropping to 16 hexadecimal digits, independent of file format and metadata."""
    digest = hashlib.sha256(repr(image.size).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def select_people(images: dict[str, int], spec: DataSpec) -> list[str]:
    """Select people, in the order of `images` (person -> number of images).

    Keeps those with at least `spec.min_images`, of these the `spec.people` with the most images, ties by order, and
    `spec.unlabelled`, which is not a person.
    """
    enough = [person for person, count in images.items() if count >= spec.min_images or person == spec.unlabelled]
    ranked = sorted((person for person in enough if person != spec.unlabelled), key=lambda person: -images[person])
    kept = {*ranked[: spec.people or None], spec.unlabelled}
    return [person for person in enough if person in kept]


def decode_faces(
    pictures: Iterable[Picture],
    total: int,
    spec: DataSpec,
    *,
    people: Sequence[str] = (),
    enough: int = 0,
    images: Any = None,
) -> Faces:
    """Decode `pictures` (at most `total`, grouped and sorted in their final order) and select people.

    A file that is not an image is named in the notes and skipped; a person with fewer than `spec.min_images` readable
    images is named and left out. An image that could not be read this time, which may be intact, is also in
    `unread`. Draws a progress bar on a terminal's standard error.

    Args:
        people: all people in `pictures`, in final order; empty uses the order of their first images.
        enough: after this many readable images of a person, the others are skipped unread; 0 reads all.
        images: receives the pixels in place of a new array (`stream.PixelDigest`).

    Raises:
        TooLargeError: a new array does not fit in free memory.
    """
    if images is None:
        check_memory(total, spec.resolution)
        images = np.empty((total, spec.resolution, spec.resolution, 3), np.uint8)
    kept: list[Picture] = []
    content: list[str] = []
    readable: Counter[str] = Counter(dict.fromkeys(people, 0))
    skipped: list[str] = []
    unread: dict[str, str] = {}  # name -> reason
    oblong: set[str] = set()
    for picture in track(pictures, "decoding faces", total):
        if readable.setdefault(picture.person, 0) >= enough > 0 and picture.person != spec.unlabelled:
            continue
        looked = picture.look()
        if looked.fault:
            skipped.append(f"{picture.name}: {looked.fault}")
        elif looked.pixels is None:
            unread[picture.name] = looked.unread
        else:
            images[len(kept)] = looked.pixels
            if not looked.square:
                oblong.add(picture.name)
            kept.append(picture)
            content.append(looked.content)
            readable[picture.person] += 1
    selected = tuple(select_people(readable, spec))
    faces = _keep(selected, kept, content, images, spec)
    readable.pop(spec.unlabelled, None)
    notes = _describe_skipped(skipped, unread, readable, spec.min_images)
    if len(selected) - (spec.unlabelled in selected) < spec.people and spec.name != "lfw52":  # which has its own note
        notes.append(f"data.people={spec.people} was requested, but there are only {len(selected)}")
    fitted = describe_fit(len(oblong.intersection(faces.names)), len(faces.names), spec.fit)
    if fitted:
        notes.append(fitted)
    return dataclasses.replace(faces, notes=tuple(notes), unread=tuple(unread))


def _describe_skipped(
    skipped: Sequence[str], unread: Mapping[str, str], readable: Mapping[str, int], min_images: int
) -> list[str]:
    notes = [f"skipped {show_unseen(one)}" for one in skipped[:NAMED_AT_MOST]]
    if len(skipped) > NAMED_AT_MOST:
        notes.append(f"skipped {len(skipped) - NAMED_AT_MOST:,} more unreadable images")
    if unread:
        reasons = [f"{name} ({reason})" for name, reason in unread.items()]
        notes.append(
            f"could not be read this time ({len(unread):,}): {list_names(reasons)}; they will be tried again next time"
        )
    few = [f"{person} ({count})" for person, count in readable.items() if count < min_images]
    if few:
        notes.append(f"left out, with fewer than data.min_images={min_images} readable images: {list_names(few)}")
    return notes


def _keep(
    people: tuple[str, ...],
    pictures: list[Picture],
    content: list[str],
    images: Any,
    spec: DataSpec,
) -> Faces:
    label_of = {person: label for label, person in enumerate(people)}
    taken: Counter[str] = Counter()
    rows = []
    for row, picture in enumerate(pictures):
        limit = spec.limit_images(picture.person)
        if picture.person in label_of and (limit is None or taken[picture.person] < limit):
            taken[picture.person] += 1
            rows.append(row)
    return Faces(
        images=images if len(rows) == len(images) else images[rows],
        labels=np.array([label_of[pictures[row].person] for row in rows], np.int32),
        people=people,
        names=tuple(pictures[row].name for row in rows),
        content=tuple(content[row] for row in rows),
    )
