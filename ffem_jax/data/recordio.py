"""insightface's training sets: `train.rec`, `train.idx` and `property`, read without MXNet.

A record file is records one after another, each padded to 4 bytes:

    uint32 0xced7230a, uint32 (flag << 29 | length), `length` bytes, padding

flag 0 is a whole record; 1, 2 and 3 are the first, the middle and the last part of one that held the magic number at a
multiple of 4 bytes: there it was cut, and the magic number left out. A record of a face is

    uint32 flag, float32 label, uint64 id, uint64 id2, `flag` float32 labels (the first is the person's), a JPEG or PNG

Record 0 may hold no image and two labels: the images are the records from 1 to before the first of these, and the
records from there to before the second are of people: two labels each, their images' range.

References:
    dmlc-core, include/dmlc/recordio.h; MXNet, src/io/image_recordio.h; insightface, face2rec2.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.decode import PictureError
from ffem_jax.data.file_bytes import FileBytes, open_bytes
from ffem_jax.data.folder import find_root
from ffem_jax.data.listing import list_names
from ffem_jax.data.source import load_source
from ffem_jax.data.stream import Label
from ffem_jax.specs.data import DataSpec

MAGIC = struct.pack("<I", 0xCED7230A)
LENGTH_BITS = 29
WHOLE, FIRST, MIDDLE, LAST = range(4)

# The relative distance of neighbouring float32: they tell whole numbers apart up to 16,777,216 alone.
FLOAT_STEP = 2.0**-23

HEADER = struct.Struct("<IfQQ")
WANTED = "it must hold insightface's train.rec, with train.idx and property"


def load(spec: DataSpec) -> Faces:
    """The faces in `data.root`/train.rec.

    Raises:
        DataError: it is missing, holds no record, or leaves fewer than two people.
    """
    root = find_root(spec, WANTED)
    path = root / "train.rec"
    if not path.is_file():
        raise DataError(f"data.root={root} has no train.rec; {WANTED}")
    files = [path, path.with_suffix(".idx"), root / "property"]
    return load_source(spec, root, files, lambda: RecordSource(path), lambda: RecordReader(path))


class RecordError(PictureError):
    """A record that is not as the format says. The message says why, in a few words."""


@dataclass(frozen=True)
class Record:
    """A record's header. labels: the one label, or the first two of the vector; image_at: where the image begins."""

    labels: tuple[float, ...]
    image_at: int


class RecordReader:
    """Reads the images of a record file; see `stream.ImageReader`. An address is the byte where the record starts."""

    def __init__(self, path: Path) -> None:
        self.data = open_bytes(path)

    def read(self, address: np.ndarray) -> bytes:
        """One image's file. Raises RecordError where the record is broken."""
        content = read_record(self.data, int(address[0]))
        return content[parse_header(content, len(content)).image_at :]


class RecordSource:
    """The images of a record file; see `stream.ImageSource`. Names are `label/key`, the key in eight digits."""

    label_names: Mapping[int, str] = {}

    def __init__(self, path: Path) -> None:
        self._path, self._notes = path, []
        self.reader = RecordReader(path)
        self._data = self.reader.data
        # Without an index nothing else tells of a record that another one's false length covers.
        starts, damaged = scan_records(self._data, thorough=not path.with_suffix(".idx").is_file())
        keys = self._match_index(starts, damaged)
        self.names: list[str] = []
        self.labels: list[Label] = []
        starts = []
        self._collect(keys, damaged, starts)
        self.addresses = np.array(starts, np.int64).reshape(-1, 1)
        if damaged:
            named = [f"at byte {place:,} ({why})" for place, why in sorted(damaged.items())]
            self._notes.append(f"skipped corrupt records of {path.name} ({len(named):,}): {list_names(named)}")
        if not self.names:
            raise DataError(f"{path} holds no image{f' ({self._notes[-1]})' if self._notes else ''}; {WANTED}")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """What does not agree in the three files."""
        return [*self._notes, *self._check_property(sizes)]

    def _collect(self, keys: Mapping[int, int], damaged: dict[int, str], starts: list[int]) -> None:
        """Take up the images among the records, {start: key}, in the order of their keys; adds to `starts`."""
        head: Record | None = None
        ranges: list[tuple[int, int, int]] = []
        images: dict[int, Label] = {}  # by key
        empty: list[str] = []
        for start, key in sorted(keys.items(), key=lambda both: both[1]):
            try:
                length = _walk(self._data, start)[1]
                record = parse_header(read_record(self._data, start, HEADER.size + 8), length)
                if length > record.image_at:
                    label = images[key] = _read_label(record.labels[0])
                    self.names.append(f"{label}/{key:08d}")
                    self.labels.append(label)
                    starts.append(start)
                elif key == 0 and len(record.labels) == 2:
                    head = record
                elif head and len(record.labels) == 2 and key >= head.labels[0] * (1 - FLOAT_STEP):
                    ranges.append((key, _read_label(record.labels[0]), _read_label(record.labels[1])))
                else:
                    empty.append(f"record {key}")
            except RecordError as error:
                damaged[start] = f"record {key}: {error}"
        if empty:
            self._notes.append(f"skipped records without an image ({len(empty):,}): {list_names(empty)}")
        self._check_head(head, images, ranges)

    def _match_index(self, starts: list[int], damaged: dict[int, str]) -> dict[int, int]:
        """The key of each record by its start: the index's, or its position where the index is missing or lies."""
        path = self._path.with_suffix(".idx")
        try:
            keys, odd = _parse_index(path.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
            self._notes.append(
                f"{path.name} {reason}: {self._path.name} was read through instead, and holds {len(starts):,} records"
            )
            return _number(starts, damaged)
        known = set(starts)
        known |= {start for start in keys if start not in known and _starts_record(self._data, start)}
        lying = [start for start in keys if start not in known and start not in damaged]
        unlisted = known - set(keys)
        repeated = len(keys) - len(set(keys.values()))
        if not (lying or unlisted or odd or repeated):
            return {start: key for start, key in keys.items() if start in known}
        self._notes.append(
            f"{path.name} disagrees with {self._path.name}: of {len(keys) + odd:,} lines {odd:,} are no `key<tab>byte`,"
            f" {len(lying):,} point to where no record starts and {repeated:,} repeat a key, and {len(unlisted):,} "
            "records are not in it; the file was scanned instead"
        )
        return _number(known, damaged)

    def _check_head(
        self, head: Record | None, images: Mapping[int, Label], ranges: Sequence[tuple[int, int, int]]
    ) -> None:
        """Note disagreements of record 0, or of identity records, with the images."""
        if head is None:
            return
        first, last = head.labels[:2]
        if not math.isclose(first - 1, len(images), rel_tol=FLOAT_STEP):
            self._notes.append(f"record 0 announces {first - 1:,.0f} images, but there are {len(images):,}")
        if not math.isclose(last - first, len(ranges), abs_tol=last * FLOAT_STEP):
            self._notes.append(f"record 0 announces {last - first:,.0f} people, but {len(ranges):,} have a record")
        mixed = [
            f"record {key}" for key, low, high in ranges
            if high < 1 / FLOAT_STEP and len({images[key] for key in range(low, high) if key in images}) != 1
        ]  # fmt: skip
        if mixed:
            self._notes.append(
                f"identity records whose images have no or several labels ({len(mixed):,}): {list_names(mixed)}; the "
                "label of each image is used"
            )

    def _check_property(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        path = self._path.with_name("property")
        try:
            classes, height, width = map(int, path.read_text(encoding="ascii").split(","))
        except FileNotFoundError:
            return []
        except (OSError, ValueError):
            return ["property is ignored: it is not `people,height,width`, as 85742,112,112"]
        people = len({label for label in self.labels if isinstance(label, int) and label >= 0})
        notes = []
        if classes != people:
            notes.append(f"property announces {classes:,} people, but the records have {people:,}")
        others = {size: count for size, count in sizes.items() if size != (width, height)}
        if others:
            found = ", ".join(f"{w} x {h} ({count:,})" for (w, h), count in sorted(others.items())[:3])
            notes.append(
                f"property announces images of {width} x {height} pixels, but {sum(others.values()):,} of "
                f"{sum(sizes.values()):,} are not: {found}"
            )
        return notes


def scan_records(data: FileBytes | bytes, thorough: bool = False) -> tuple[list[int], dict[int, str]]:
    """Scan the file for the starts of records, in bytes, and for corrupt records with the reasons.

    After a corrupt record it continues at the next magic number, which occurs nowhere else at a multiple of 4 bytes.

    Args:
        thorough: search the content of every record for the start of another, not only if no record follows.
    """
    starts: list[int] = []
    damaged: dict[int, str] = {}
    place = 0
    while place < len(data):
        try:
            end, _ = _walk(data, place)
            if thorough or data[end : end + 4] != MAGIC:
                read_record(data, place)
            starts.append(place)
        except RecordError as error:
            damaged[place] = str(error)
            end = _find_magic(data, place + 4)
            while end < len(data) and not _is_start(data, end):
                end = _find_magic(data, end + 4)
        place = end
    return starts, damaged


def _number(starts: Collection[int], damaged: Collection[int]) -> dict[int, int]:
    """Return {start: key} with the key being the position among all records, including corrupt ones."""
    whole = set(starts)
    return {start: key for key, start in enumerate(sorted({*starts, *damaged})) if start in whole}


def _walk(data: FileBytes | bytes, start: int) -> tuple[int, int]:
    """Return the end of the record at `start`, including padding, and its number of bytes.

    Raises:
        RecordError: it is missing or incomplete.
    """
    place, expected, held = start, (WHOLE, FIRST), 0
    while True:
        head = data[place : place + 8]
        if len(head) < 8:
            raise RecordError("the file ends in it")
        if head[:4] != MAGIC:
            raise RecordError("no record starts there" if place == start else "a part of it is missing")
        (word,) = struct.unpack("<I", head[4:])
        flag, length = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
        if flag not in expected:
            raise RecordError("its parts are out of order")
        if place + 8 + length > len(data):
            raise RecordError("the file ends in it")
        place = min(place + 8 + -(-length // 4) * 4, len(data))
        held += length
        if flag in (WHOLE, LAST):
            return place, held
        held += len(MAGIC)
        expected = (MIDDLE, LAST)


def _is_start(data: FileBytes | bytes, place: int) -> bool:
    """Return whether the magic number at `place` starts a record rather than a later part of one."""
    head = data[place : place + 8]
    return len(head) < 8 or head[7] >> 5 in (WHOLE, FIRST)


def _find_magic(data: FileBytes | bytes, place: int) -> int:
    """Return the next multiple of 4 from `place` on with the magic number, or the end of `data`."""
    while (place := data.find(MAGIC, place)) >= 0:
        if place % 4 == 0:
            return place
        place += 1
    return len(data)


def _starts_record(data: FileBytes | bytes, start: int) -> bool:
    try:
        return start % 4 == 0 and _walk(data, start)[0] > start
    except RecordError:
        return False


def read_record(data: FileBytes | bytes, start: int, at_least: int = 0) -> bytes:
    """Return the content of the record at `start`, with parts joined; at_least: number of bytes needed, 0 for all.

    Raises:
        RecordError: it is corrupt.
    """
    end, _ = _walk(data, start)
    content, place = b"", start
    while place < end:
        (word,) = struct.unpack("<I", data[place + 4 : place + 8])
        length = word & ((1 << LENGTH_BITS) - 1)
        taken = min(length, max(at_least - len(content), 0)) if at_least else length
        part = data[place + 8 : place + 8 + taken]
        if len(part) < taken:
            raise RecordError("the file ends in it")
        if not at_least and _find_magic(part, 0) < len(part):
            raise RecordError("another record starts within it")
        content += part
        if at_least and len(content) >= at_least:
            return content
        if word >> LENGTH_BITS in (FIRST, MIDDLE):
            content += MAGIC
        place += 8 + -(-length // 4) * 4
    return content


def parse_header(content: bytes, length: int) -> Record:
    """Parse the header of a face record.

    Args:
        content: its first bytes, enough for two labels, or all of it.
        length: its total number of bytes.

    Raises:
        RecordError: it is too short for a header.
    """
    if length < HEADER.size:
        raise RecordError("it is empty" if not length else f"it has {length} bytes, too few for a header")
    flag, label, _, _ = HEADER.unpack_from(content)
    image_at = HEADER.size + 4 * flag
    if image_at > length:
        raise RecordError(f"its header announces {flag:,} labels, but it ends before")
    return Record(struct.unpack_from(f"<{min(flag, 2)}f", content, HEADER.size) if flag else (label,), image_at)


def _read_label(label: float) -> int:
    if not math.isfinite(label) or label != int(label):
        raise RecordError(f"its label {label:g} is not a whole number")
    return int(label)


def _parse_index(text: str) -> tuple[dict[int, int], int]:
    """Read {start: key} from an index, and count its invalid lines."""
    keys: dict[int, int] = {}
    odd = 0
    for line in text.splitlines():
        try:
            key, start = map(int, line.split("\t"))
            if start in keys or start < 0:
                raise ValueError
            keys[start] = key
        except ValueError:
            odd += bool(line.strip())
    return keys, odd
