"""insightface's evaluation sets, `lfw.bin` and others: pairs of encoded images, with whether they show one person.

The file is a pickle of (2 n encoded images, n booleans). A pickle can call any function; this unpickler allows none, so
that only plain values can be built.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.cache import hash_text, load_cached, stat_files
from ffem_jax.data.decode import PictureError, decode_picture, hash_picture
from ffem_jax.data.listing import list_names
from ffem_jax.data.memory import check_memory
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.protocol import ProtocolSpec
from ffem_jax.text.progress import track

ENDING = ".bin"
# The number of folds, and so the minimum number of pairs.
LEAST_PAIRS = 10


@dataclass(frozen=True)
class BinSet:
    """A set of pairs. images: uint8 [2 pair, R, R, 3], the two of each pair adjacent; same: bool [pair].

    fingerprint: hash of its images before resizing and of its pairs, 16 hexadecimal digits.
    """

    name: str
    images: np.ndarray
    same: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class Bins:
    """All sets to test. digest: hash of their names, pixels and pairs, 16 hexadecimal digits; content: hashes."""

    sets: tuple[BinSet, ...]
    digest: str
    content: tuple[str, ...]


def load_bins(data: DataSpec, protocol: ProtocolSpec) -> Bins:
    """Load the sets `protocol.bins` from `protocol.bins_root`, or else `data.root`, at `data.resolution`, uncropped.

    Raises:
        DataError: a file is missing, is not such a pickle or requests code execution, or one of its images is
            unreadable: a rate over only some of the pairs is not comparable with published ones.
    """
    paths = find_bins(data, protocol)
    names = [path.name.removesuffix(ENDING) for path in paths]
    whole = dataclasses.replace(data, people=0, min_images=1, max_images=0, crop=1.0)
    faces = load_cached(whole, lambda: ["bins", names, stat_files(paths)], lambda: _decode_bins(paths, data))
    counts = Counter(name.rpartition("/")[0] for name in faces.names)
    sets, start = [], 0
    for name in names:
        end = start + counts[name]
        same = faces.labels[start:end:2].astype(bool)
        fingerprint = hash_text([faces.content[start:end], same.tolist()])
        sets.append(BinSet(name, faces.images[start:end], same, fingerprint))
        start = end
    return Bins(tuple(sets), hash_text([faces.fingerprint, names, list(counts.values())]), faces.content)


def find_bins(data: DataSpec, protocol: ProtocolSpec) -> list[Path]:
    """Find the files to test on, by name. Raises DataError if one is missing or there are none."""
    named = protocol.bins_root or data.root
    if not named:
        raise DataError("protocol=bins needs protocol.bins_root=DIR, the folder of lfw.bin and others")
    root = Path(named).expanduser().absolute()
    there = sorted(path for path in root.glob(f"*{ENDING}") if path.is_file())
    has = list_names([path.name for path in there]) or "no .bin file"
    if not protocol.bins:
        if not there:
            raise DataError(f"{root} has {has}; set protocol.bins_root=DIR to the folder of lfw.bin and others")
        return there
    paths = [root / f"{name}{ENDING}" for name in protocol.bins]
    for path in paths:
        if path not in there:
            raise DataError(f"protocol.bins: {path} does not exist; {root} has {has}")
    return paths


class _PlainUnpickler(pickle.Unpickler):
    """Builds only pickle's own types: numbers, bytes, strings, lists, tuples. References to code are refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse it."""
        # This is how Python 3 writes bytes in the protocols of Python 2.
        hint = ": pickled by Python 3, it must be with protocol=4" if module == "_codecs" else ""
        raise pickle.UnpicklingError(
            f"it requests {module}.{name}, but may contain only bytes, lists and booleans{hint}"
        )

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an external object")


def read_bin(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Read the encoded images, two per pair, and bool [pair], whether both show one person.

    Raises:
        DataError: the file is unreadable or not in insightface's format; nothing in it is executed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None
    try:
        # The published files were written by Python 2, whose strings are bytes.
        held = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a corrupt pickle raises almost every built-in type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is refused: {reason}; fetch it again from a source that you trust") from None
    fault = _find_fault(held)
    if fault:
        raise DataError(f"{path} is not in insightface's format: {fault}")
    images, same = held
    return [bytes(image) for image in images], np.array([bool(one) for one in same])


def _find_fault(held: Any) -> str:
    """Describe what is wrong with an unpickled value, in one line; empty if it is valid."""
    if not (isinstance(held, tuple | list) and len(held) == 2):
        return "it does not contain two lists"
    images, same = held
    if not (isinstance(images, tuple | list) and all(isinstance(image, bytes | bytearray) for image in images)):
        return "its first part is not a list of encoded images"
    if not (isinstance(same, tuple | list) and all(isinstance(one, int) and one in (0, 1) for one in same)):
        return "its second part is not a list of booleans"
    if len(images) != 2 * len(same):
        return f"{len(images):,} images do not match {len(same):,} pairs"
    if len(same) < LEAST_PAIRS:
        return f"{len(same)} pairs are too few for {LEAST_PAIRS} folds"
    if all(same) or not any(same):
        return "its pairs are all of one kind; pairs of one person and of two people are both needed"
    return ""


def _decode_bins(paths: Sequence[Path], data: DataSpec) -> Faces:
    """The images of all files, concatenated; the label says whether the image's pair shows one person."""
    read = [(path, *read_bin(path)) for path in paths]
    total = sum(len(images) for _, images, _ in read)
    check_memory(total, data.resolution)
    pixels = np.empty((total, data.resolution, data.resolution, 3), np.uint8)
    content: list[str] = []
    encoded = [(path, place, image) for path, images, _ in read for place, image in enumerate(images)]
    for row, (path, place, image) in enumerate(track(encoded, "decoding pairs", total)):
        try:
            picture = decode_picture(image)
        except PictureError as error:
            raise DataError(f"{path}: image {place:,} cannot be read ({error}); fetch the file again") from None
        pixels[row] = crop_face(picture, 1.0, data.resolution, data.fit)
        content.append(hash_picture(picture))
    return Faces(
        images=pixels,
        labels=np.concatenate([np.repeat(same, 2) for _, _, same in read]).astype(np.int32),
        people=(),
        names=tuple(f"{path.name.removesuffix(ENDING)}/{place}" for path, place, _ in encoded),
        content=tuple(content),
    )
