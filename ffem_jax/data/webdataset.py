"""WebDataset's tar files: `KEY.jpg` (or png, webp) and `KEY.cls` or `KEY.json` beside it form one sample.

The key is everything before the first dot of the file's name. `.cls` contains a number or a name; `.json` an object
with the person under `data.label_field`, else `label`. Tar files must be uncompressed: images are read in place.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.decode import PictureError
from ffem_jax.data.folder import find_root
from ffem_jax.data.listing import list_names
from ffem_jax.data.source import find_shards, load_source
from ffem_jax.data.stream import Label
from ffem_jax.specs.data import DataSpec
from ffem_jax.text.names import decode_file_name

IMAGES = ("jpg", "jpeg", "png", "webp", "pgm")
WANTED = (
    "it must contain WebDataset's tar files, with KEY.jpg and KEY.cls (or KEY.json); data.files=PATTERN selects some"
)


def load(spec: DataSpec) -> Faces:
    """Load the faces in the tar files of `data.root`.

    Raises:
        DataError: there is no file, one is not a tar file or is compressed, no sample has an image and a label, or
            fewer than two people are left.
    """
    root = find_root(spec, WANTED)
    shards, left_out = find_shards(spec, root, (".tar",), WANTED)
    return load_source(
        spec, root, shards, lambda: TarSource(root, shards, left_out, spec.label_field or "label"),
        lambda: TarReader(shards),
    )  # fmt: skip


@dataclass
class _Sample:
    """The files of a sample: (first byte, length) by extension."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)


class TarReader:
    """Reads files in tar files; see `stream.ImageReader`. An address is (tar file, first byte, length)."""

    def __init__(self, shards: list[Path]) -> None:
        self._shards = shards

    def read(self, address: np.ndarray) -> bytes:
        """Read one image's file. Raises PictureError if the tar file ends before it does."""
        shard, start, length = map(int, address)
        return _read_part(self._shards[shard], start, length)


class TarSource:
    """The images of tar files; see `stream.ImageSource`. Names are `shard/key`."""

    label_names: Mapping[int, str] = {}

    def __init__(self, root: Path, shards: list[Path], notes: list[str], label_field: str) -> None:
        self._notes, self._label_field = list(notes), label_field
        self.names: list[str] = []
        self.labels: list[Label] = []
        self.reader = TarReader(shards)
        addresses: list[tuple[int, int, int]] = []
        self._passed: Counter[str] = Counter()
        self._unlabelled: list[str] = []
        for number, path in enumerate(shards):
            name = str(path.relative_to(root)).removesuffix(".tar")
            addresses += [(number, *part) for part in self._add_shard(path, name)]
        self.addresses = np.array(addresses, np.int64).reshape(-1, 3)
        if self._passed:
            counts = ", ".join(f"{list_names([what])} ({count:,})" for what, count in sorted(self._passed.items()))
            self._notes.append(f"skipped in the tar files: {counts}")
        if self._unlabelled:
            self._notes.append(
                f"skipped images whose label cannot be read ({len(self._unlabelled):,}): {list_names(self._unlabelled)}"
            )
        if not self.names:
            reason = f" ({'; '.join(self._notes)})" if self._notes else ""
            raise DataError(
                f"data.root={root} has no image with a label in its {len(shards)} tar files{reason}; {WANTED}"
            )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Return notes on skipped entries."""
        return self._notes

    def _add_shard(self, path: Path, shard: str) -> Iterator[tuple[int, int]]:
        """Register the samples of one tar file; return the first byte and the length of each image."""
        for key, sample in self._read_samples(path).items():
            image = next((sample.files[ending] for ending in IMAGES if ending in sample.files), None)
            if image is None:
                self._passed["samples without an image"] += 1
                continue
            if not {"cls", "json"} & set(sample.files):
                self._passed["images without .cls or .json"] += 1
                continue
            self._passed["second images of a sample"] += sum(ending in sample.files for ending in IMAGES) - 1
            self._passed += Counter()  # drops zero counts
            try:
                label = self._read_label(path, sample)
            except PictureError as error:
                self._unlabelled.append(f"{shard}/{key} ({error})")
                continue
            self.names.append(f"{shard}/{key}")
            self.labels.append(label)
            yield image

    def _read_samples(self, path: Path) -> dict[str, _Sample]:
        """Return the samples of one tar file by key, in file order."""
        samples: dict[str, _Sample] = {}
        for member in self._list_members(path):
            folder, _, name = decode_file_name(member.name).removeprefix("./").rpartition("/")
            stem, _, ending = name.partition(".")
            if not member.isfile():
                self._passed["folders, links and others"] += not member.isdir()
            elif not stem:
                self._passed["hidden files"] += 1
            elif (ending := ending.lower()) not in (*IMAGES, "cls", "json"):
                self._passed[f".{ending}" if ending else "no ending"] += 1
            else:
                files = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample()).files
                if ending in files:
                    self._passed["duplicate files, of which the first is used"] += 1
                files.setdefault(ending, (member.offset_data, member.size))
        return samples

    def _list_members(self, path: Path) -> Iterator[tarfile.TarInfo]:
        """Return the members of the tar file up to the first defect, which is noted."""
        try:
            with tarfile.open(path, "r:") as archive:
                try:
                    yield from archive
                except tarfile.TarError as error:
                    self._notes.append(f"{path.name} is corrupt ({error}): the rest of it is not read")
                    return
                # tarfile treats a corrupt header as the end, which a block of zeros should mark.
                with open(path, "rb") as file:
                    file.seek(archive.offset)
                    mark = file.read(tarfile.BLOCKSIZE)
                if len(mark) < tarfile.BLOCKSIZE or any(mark):
                    self._notes.append(
                        f"{path.name} has no end mark at byte {archive.offset:,}: anything after that is not read"
                    )
        except tarfile.TarError:
            raise DataError(f"{path} is not a tar file, or a compressed one: decompress it with gunzip first") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None

    def _read_label(self, path: Path, sample: _Sample) -> Label:
        """Parse a number or a name. Raises PictureError if the file contains neither."""
        try:
            if "cls" in sample.files:
                return _to_label(_read_part(path, *sample.files["cls"]).decode("utf-8").strip())
            row = json.loads(_read_part(path, *sample.files["json"]))
        except PictureError:  # a ValueError too
            raise
        except UnicodeDecodeError:
            raise PictureError("its label is not text") from None
        except ValueError:
            raise PictureError("its .json is not valid JSON") from None
        if not isinstance(row, dict):
            return _to_label(row)
        if self._label_field not in row:
            raise PictureError(
                f"its .json has no {self._label_field}, but {', '.join(row) or 'nothing'}; set data.label_field"
            )
        return _to_label(row[self._label_field])


def _to_label(value: object) -> Label:
    """Parse a label; `7` and "7" are the number 7. Raises PictureError if it is neither number nor name."""
    if isinstance(value, str) and value:
        digits = value.removeprefix("-")
        return int(value) if digits.isascii() and digits.isdigit() else value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value is None:
        return None
    raise PictureError("its label is empty" if value == "" else f"its label {value!r} is neither number nor name")


def _read_part(path: Path, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(length)
    if len(data) < length:
        raise PictureError("the tar file ends in it")
    return data
