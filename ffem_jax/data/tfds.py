"""Any image-classification set that TensorFlow Datasets has prepared on this disk, by name and without TensorFlow.

ArrayRecord files are read by TFDS itself. TFRecord files, which it writes unless told otherwise, are read here: records
one after another, each `uint64 length, uint32 masked CRC-32C of it, the bytes, uint32 masked CRC-32C of them`.

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
    "it must be a data_dir of TensorFlow Datasets, NAME/VERSION/ in it with dataset_info.json; data.builder=NAME says "
    "which set"
)

HEAD, CHECK = struct.Struct("<QI"), struct.Struct("<I")
CRC_MASK = 0xA282EAD8


def load(spec: DataSpec) -> Faces:
    """The faces of `data.builder`'s `data.split` in `data.root`.

    Raises:
        DataError: the set, the split, or its image and label are not there, it is in a format that needs TensorFlow,
            or fewer than two people are left.
    """
    root = find_root(spec, WANTED)
    builder, split = _open_split(root, spec)
    files = [Path(instruction.filename) for instruction in split.file_instructions]
    if not files:
        raise DataError(f"data.split={spec.split!r} of data.builder={spec.builder} is empty; name a larger one")
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
        # TFDS announces itself on standard output, which belongs to `--json`.
        with contextlib.redirect_stdout(io.StringIO()):
            return read_only_builder.builder_from_files(name, data_dir=str(root))
    except Exception as error:  # the readers of names, JSON and features each raise their own types
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"data.builder={name} cannot be opened in data.root={root}, which has {_list_builders(root)}: {lines[0]}"
        ) from None


def _find_split(builder: Any, name: str) -> Any:
    try:
        return builder.info.splits[name]
    except Exception as error:  # a name that is not there, and a slice that cannot be read, are of several types
        there = ", ".join(builder.info.splits) or "none"
        lines = str(error).strip("\"' ").splitlines() or [type(error).__name__]
        raise DataError(f"data.split={name!r} is no split of {builder.name}, which has {there}: {lines[0]}") from None


class ExampleReader:
    """Reads the examples of a split; see `stream.ImageReader`.

    An address is the index in the split, of TFRecord files (which file, first byte, length).

    Attributes:
        files: of TFRecord, in order; empty for ArrayRecord.
        label: the feature that says whose face it is. classes: the people's names by number.
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
            except Exception as error:  # ArrayRecord raises its own types where a file is missing or cut off
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
        """One image's file. Raises PictureError where its record is broken."""
        return bytes(self.read_example(address)[self._image])

    def read_example(self, address: np.ndarray) -> dict[str, Any]:
        """All features of an example, its image not decoded. Raises PictureError where its record is broken."""
        try:
            example = self._read_example(address)
        except (PictureError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and protobuf each raise their own types on damaged input
            raise PictureError(
                f"its record is broken: {(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from None
        # ArrayRecord gives an empty record where a file is cut off, and TFDS an example of nothing for it.
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
        """Take up the example at `place` of the split; whether it could be read."""
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
        """How many images there are."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """The records that could not be read."""
        notes = list(self._notes)
        for reason, places in self._broken.items():
            notes.append(f"skipped {len(places):,} records, for {reason}: {list_names(places)}")
        return notes


def find_fields(features: Any, supervised: Sequence[str] | None, spec: DataSpec) -> tuple[str, str]:
    """The names of the features that hold the image and who it shows.

    Args:
        supervised: the pair that the set declares, or None.

    Raises:
        DataError: there is none, or several and none is named by `data.image_field` or `data.label_field`.
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
    """The content of a record. Raises PictureError where its bytes are not those that were written."""
    content = files[file][start : start + length]
    if files[file][start + length : start + length + CHECK.size] != CHECK.pack(compute_masked_crc(content)):
        raise PictureError("its record is broken: the checksum is another")
    return content


def scan_tfrecords(data: FileBytes | bytes) -> tuple[list[tuple[int, int]], str]:
    """(first byte, length) of each record's content, and what ended the file early; empty where nothing did."""
    places: list[tuple[int, int]] = []
    start = 0
    while start < len(data):
        head = data[start : start + HEAD.size]
        if len(head) < HEAD.size:
            return places, "the file ends in a record"
        length, check = HEAD.unpack(head)
        if check != compute_masked_crc(head[:8]):
            return places, f"the record at byte {start:,} is broken, and where the next one starts is not known"
        end = start + HEAD.size + length + CHECK.size
        if end > len(data):
            return places, "the file ends in a record"
        places.append((start + HEAD.size, length))
        start = end
    return places, ""


def compute_masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, turned right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF
