"""Reads any image-classification set prepared by TensorFlow Datasets on this disk, by name and without TensorFlow.

TFDS itself reads ArrayRecord files. TFRecord files, its default, are read here: a sequence of records, each `uint64
length, uint32 masked CRC-32C of it, the bytes, uint32 masked CRC-32C of them`.

References:
    TensorFlow, tensorflow/core/lib/io/record_writer.h; RFC 3720, B.4 (CRC-32C).
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow_datasets as tfds

from ffem_jax.data import DataError, Faces
from ffem_jax.data.decode import PictureError
from ffem_jax.data.file_bytes import FileBytes, open_bytes
from ffem_jax.data.folder import find_root
from ffem_jax.data.listing import list_names
from ffem_jax.data.source import choose_field, load_source
from ffem_jax.data.stream import Label
from ffem_jax.specs.data import DataSpec

WANTED = (
    "it must be a data_dir of TensorFlow Datasets, with NAME/VERSION/dataset_info.json; data.builder=NAME chooses "
    "the set"
)

HEAD, CHECK = struct.Struct("<QI"), struct.Struct("<I")
CRC_MASK = 0xA282EAD8


def load(spec: DataSpec) -> Faces:
    """Load the faces of `data.split` of `data.builder` in `data.root`.

    Raises:
        DataError: the set, the split, or its image or label is missing, the format needs TensorFlow, or fewer than two
            people are left.
    """
    root = find_root(spec, WANTED)
    builder, split = _open_split(root, spec)
    files = [Path(instruction.filename) for instruction in split.file_instructions]
    if not files:
        raise DataError(f"data.split={spec.split!r} of data.builder={spec.builder} is empty; choose a larger one")
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise DataError(f"data.builder={spec.builder} lacks files in {builder.data_path}: {list_names(missing)}")
    described = [path for path in Path(builder.data_path).iterdir() if path.suffix in (".json", ".txt")]
    return load_source(
        spec, root, [*files, *sorted(described)], lambda: TfdsSource(root, spec), lambda: ExampleReader(root, spec)
    )


def _open_split(root: Path, spec: DataSpec) -> tuple[Any, Any]:
    if not spec.builder:
        raise DataError(f"data=tfds needs data.builder=NAME; data.root={root} has {_list_builders(root)}")
    builder = _open_builder(root, spec.builder)
    return builder, _find_split(builder, spec.split)


def _list_builders(root: Path) -> str:
    found = {path.relative_to(root).parts[0] for path in root.glob("*/**/dataset_info.json")}
    return list_names(sorted(found)) or "none"


def _open_builder(root: Path, name: str) -> Any:
    from tensorflow_datasets.core import read_only_builder

    try:
        # TFDS prints to standard output, which is reserved for `--json`.
        with contextlib.redirect_stdout(io.StringIO()):
            return read_only_builder.builder_from_files(name, data_dir=str(root))
    except Exception as error:  # parsers of names, JSON and features raise various types
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"data.builder={name} cannot be opened in data.root={root}, which has {_list_builders(root)}: {lines[0]}"
        ) from None


def _find_split(builder: Any, name: str) -> Any:
    try:
        return builder.info.splits[name]
    except Exception as error:  # unknown names and invalid slices raise various types
        there = ", ".join(builder.info.splits) or "none"
        lines = str(error).strip("\"' ").splitlines() or [type(error).__name__]
        raise DataError(
            f"data.split={name!r} is not a split of {builder.name}, which has {there}: {lines[0]}"
        ) from None


class ExampleReader:
    """Reads the examples of a split; see `stream.ImageReader`.

    An address is the index in the split or, for TFRecord, (file, first byte, length).

    Attributes:
        files: the TFRecord files, in order; empty for ArrayRecord.
        label: the feature with the identity. classes: the people's names by number.
    """

    def __init__(self, root: Path, spec: DataSpec) -> None:
        self._opened = root, spec
        builder, self.split = _open_split(root, spec)
        features = builder.info.features
        self._image, self.label = find_fields(features, builder.info.supervised_keys, spec)
        self.classes: Sequence[str] = getattr(features[self.label], "names", None) or []
        decoders = {self._image: tfds.decode.SkipDecoding()}
        self.files: list[FileBytes] = []
        format_name = builder.info.file_format.value
        if format_name == "array_record":
            try:
                examples = builder.as_data_source(split=spec.split, decoders=decoders)
                self.count = len(examples)
            except Exception as error:  # ArrayRecord raises its own types for a missing or truncated file
                raise DataError(
                    f"data.builder={spec.builder}: the files of {spec.split} in {builder.data_path} cannot be read: "
                    f"{(str(error).splitlines() or [type(error).__name__])[0]}; prepare the set again"
                ) from None
            self._read_example: Callable[[np.ndarray], dict[str, Any]] = lambda address: examples[int(address[0])]
        elif format_name == "tfrecord":
            self.files = [open_bytes(Path(one.filename)) for one in self.split.file_instructions]
            self._read_example = lambda address: features.deserialize_example_np(
                read_tfrecord(self.files, *map(int, address)), decoders=decoders
            )
        else:
            raise DataError(
                f"data.builder={spec.builder} is prepared as {format_name}, which needs TensorFlow to be read; prepare "
                "it again with file_format='array_record'"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return ExampleReader, self._opened

    def read(self, address: np.ndarray) -> bytes:
        """Read one image's file. Raises PictureError if its record is corrupt."""
        return bytes(self.read_example(address)[self._image])

    def read_example(self, address: np.ndarray) -> dict[str, Any]:
        """Return all features of an example, without decoding its image. Raises PictureError if its record is
        corrupt."""
        try:
            example = self._read_example(address)
        except (PictureError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and protobuf raise their own types on corrupt input
            raise PictureError(
                f"its record is corrupt: {(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from None
        # For a truncated file ArrayRecord returns an empty record, and TFDS an empty example.
        if example.get(self._image) is None:
            raise PictureError("its record is empty")
        return example


class TfdsSource:
    """The images of a split; see `stream.ImageSource`. Names are `label/index`, the index in the split."""

    def __init__(self, root: Path, spec: DataSpec) -> None:
        self.reader = ExampleReader(root, spec)
        self.label_names: Mapping[int, str] = dict(enumerate(self.reader.classes))
        self.names: list[str] = []
        self.labels: list[Label] = []
        self._notes: list[str] = []
        self._broken: dict[str, list[str]] = defaultdict(list)
        every = self._list_tfrecords() if self.reader.files else np.arange(self.reader.count).reshape(-1, 1)
        taken = [place for place, address in enumerate(every) if self._add(place, address)]
        self.addresses = every[taken]

    def _list_tfrecords(self) -> np.ndarray:
        addresses = []
        for number, (one, data) in enumerate(zip(self.reader.split.file_instructions, self.reader.files, strict=True)):
            places, fault = scan_tfrecords(data)
            wanted = one.skip + one.examples_in_shard if one.take == -1 else one.skip + one.take
            if fault or len(places) < wanted:
                reason = f": {fault}" if fault else ""
                self._notes.append(f"{Path(one.filename).name} has {len(places):,} of {wanted:,} records{reason}")
            addresses += [(number, *place) for place in places[one.skip : wanted]]
        return np.array(addresses, np.int64).reshape(-1, 3)

    def _add(self, place: int, address: np.ndarray) -> bool:
        """Register the example at `place` of the split; return whether it is readable."""
        try:
            value = self.reader.read_example(address)[self.reader.label]
        except PictureError as error:
            self._broken[str(error)].append(str(place))
            return False
        who: Label = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        who = who if who is None or isinstance(who, str) else int(who)
        self.names.append(f"{self.label_names.get(who, who) if isinstance(who, int) else who}/{place:08d}")
        self.labels.append(who)
        return True

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Return notes on unreadable records."""
        notes = list(self._notes)
        for reason, places in self._broken.items():
            notes.append(f"skipped {len(places):,} records ({reason}): {list_names(places)}")
        return notes


def find_fields(features: Any, supervised: Sequence[str] | None, spec: DataSpec) -> tuple[str, str]:
    """Return the names of the features with the image and the identity.

    Args:
        supervised: the pair that the set declares, or None.

    Raises:
        DataError: there is none, or several without a choice by `data.image_field` or `data.label_field`.
    """
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    numbers = [
        name for name, feature in features.items()
        if type(feature) in (tfds.features.Scalar, tfds.features.Tensor) and feature.shape == ()
        and np.issubdtype(feature.np_dtype, np.integer)  # its dtype would import TensorFlow
    ]  # fmt: skip
    first, last = supervised[:2] if supervised and len(supervised) >= 2 else ("", "")
    image = choose_field("image_field", spec.image_field, images, (first, "image"), spec)
    return image, choose_field(
        "label_field", spec.label_field, [*classes, *texts, *numbers], (last, "label"), spec, classes
    )


def read_tfrecord(files: Sequence[FileBytes], file: int, start: int, length: int) -> bytes:
    """Return the content of a record. Raises PictureError if its checksum is wrong."""
    content = files[file][start : start + length]
    if files[file][start + length : start + length + CHECK.size] != CHECK.pack(compute_masked_crc(content)):
        raise PictureError("its record is corrupt: wrong checksum")
    return content


def scan_tfrecords(data: FileBytes | bytes) -> tuple[list[tuple[int, int]], str]:
    """Return (first byte, length) of each record's content, and why the file ended early; empty if it did not."""
    places: list[tuple[int, int]] = []
    start = 0
    while start < len(data):
        head = data[start : start + HEAD.size]
        if len(head) < HEAD.size:
            return places, "the file ends in a record"
        length, check = HEAD.unpack(head)
        if check != compute_masked_crc(head[:8]):
            return places, f"the record at byte {start:,} is corrupt, and the start of the next one is unknown"
        end = start + HEAD.size + length + CHECK.size
        if end > len(data):
            return places, "the file ends in a record"
        places.append((start + HEAD.size, length))
        start = end
    return places, ""


def compute_masked_crc(data: bytes) -> int:
    """Return TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF
