"""WebDataset's tar files: `KEY.jpg` (or png, webp) and `KEY.cls` or `KEY.json` beside it are one sample.

The key is all before the first dot of the file's name. `.cls` holds a number or a name; `.json` an object with the
person under `data.label_field`, else `label`. The files must not be compressed: images are read where they lie.
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
WANTED = "it must hold WebDataset's tar files, KEY.jpg and KEY.cls (or KEY.json) in them; data.files=PATTERN says which"


def load(spec: DataSpec) -> Faces:
    """The faces in the tar files of `data.root`.

    Raises:
        DataError: there is no file, one is no tar file or is compressed, there is no sample with an image and a label,
            or fewer than two people are left.
    """
    root = find_root(spec, WANTED)
    shards, left_out = find_shards(spec, root, (".tar",), WANTED)
    return load_source(
        spec, root, shards, lambda: TarSource(root, shards, left_out, spec.label_field or "label"),
        lambda: TarReader(shards),
    )  # fmt: skip


@dataclass
class _Sample:
    """Where a sample's files lie: (first byte, length) by ending."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)


class TarReader:
    """Reads files in tar files; see `stream.ImageReader`. An address is (which tar file, first byte, length)."""

    def __init__(self, shards: list[Path]) -> None:
        self._shards = shards

    def read(self, address: np.ndarray) -> bytes:
        """One image's file. Raises PictureError where the tar file ends before it does."""
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
            self._notes.append(f"passed over in the tar files: {counts}")
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
        """How many images there are."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """What was passed over."""
        return self._notes

    def _add_shard(self, path: Path, shard: str) -> Iterator[tuple[int, int]]:
        """Take up the samples of one tar file; the first byte and the length of each image that is taken."""
        for key, sample in self._read_samples(path).items():
            image = next((sample.files[ending] for ending in IMAGES if ending in sample.files), None)
            if image is None:
                self._passed["samples without an image"] += 1
                continue
            if not {"cls", "json"} & set(sample.files):
                self._passed["images without .cls or .json"] += 1
                continue
            self._passed["second images of a sample"] += sum(ending in sample.files for ending in IMAGES) - 1
            self._passed += Counter()  # forgets what was counted 0 times
            try:
                label = self._read_label(path, sample)
            except PictureError as error:
                self._unlabelled.append(f"{shard}/{key} ({error})")
                continue
            self.names.append(f"{shard}/{key}")
            self.labels.append(label)
            yield image

    def _read_samples(self, path: Path) -> dict[str, _Sample]:
        """The samples of one tar file by key, in its order."""
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
                    self._passed["files that are there twice, of which the first is taken"] += 1
                files.setdefault(ending, (member.offset_data, member.size))
        return samples

    def _list_members(self, path: Path) -> Iterator[tarfile.TarInfo]:
        """What the tar file lists, as far as it can be read; a note where it is damaged."""
        try:
            with tarfile.open(path, "r:") as archive:
                try:
                    yield from archive
                except tarfile.TarError as error:
                    self._notes.append(f"{path.name} is damaged ({error}): what follows in it is not read")
                    return
                # tarfile takes a damaged header for the end, which a block of zeros marks.
                with open(path, "rb") as file:
                    file.seek(archive.offset)
                    mark = file.read(tarfile.BLOCKSIZE)
                if len(mark) < tarfile.BLOCKSIZE or any(mark):
                    self._notes.append(
                        f"{path.name} has no end mark at byte {archive.offset:,}: what may follow in it is not read"
                    )
        except tarfile.TarError:
            raise DataError(f"{path} is no tar file, or a compressed one: unpack it with gunzip first") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None

    def _read_label(self, path: Path, sample: _Sample) -> Label:
        """A number or a name. Raises PictureError where the file holds neither."""
        try:
            if "cls" in sample.files:
                return _to_label(_read_part(path, *sample.files["cls"]).decode("utf-8").strip())
            row = json.loads(_read_part(path, *sample.files["json"]))
        except PictureError:  # a ValueError too
            raise
        except UnicodeDecodeError:
            raise PictureError("its label is no text") from None
        except ValueError:
            raise PictureError("its .json is no JSON") from None
        if not isinstance(row, dict):
            return _to_label(row)
        if self._label_field not in row:
            raise PictureError(
                f"its .json has no {self._label_field}, but {', '.join(row) or 'nothing'}; set data.label_field"
            )
        return _to_label(row[self._label_field])


def _to_label(value: object) -> Label:
    """`7` and "7" are the number 7. Raises PictureError for what is neither number nor name."""
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
