"""Tables of encoded images and labels, Parquet or Arrow, as Hugging Face's `datasets` writes them.

An image is a struct `{bytes, path}` or plain bytes; a label is a name or a number, whose
name may be in the table's metadata.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import functools
import itertools
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.decode import PictureError
from ffem_jax.data.folder import find_root
from ffem_jax.data.listing import list_names
from ffem_jax.data.source import choose_field, find_shards, load_source
from ffem_jax.data.stream import Label
from ffem_jax.errors import describe_install
from ffem_jax.specs.data import DataSpec

if TYPE_CHECKING:
    import pyarrow

# Each uses a file handle, and a process has about a thousand.
TABLES_OPEN = 256

WANTED = (
    "it must contain tables, *.parquet or *.arrow, as Hugging Face's datasets writes; data.files=PATTERN selects some"
)


def load(spec: DataSpec) -> Faces:
    """Load the faces in the tables of `data.root`.

    Raises:
        DataError: pyarrow is not installed, there is no table, one is unreadable or differs in its columns from the
            first, the columns of image and label are ambiguous, or fewer than two people are left.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise DataError(f"data=parquet needs pyarrow: {describe_install('parquet')}") from None
    root = find_root(spec, WANTED)
    shards, left_out = find_shards(spec, root, (".parquet", ".arrow"), WANTED)
    return load_source(
        spec, root, shards, lambda: TableSource(root, shards, left_out, spec), lambda: TableReader(root, shards, spec)
    )


class TableReader:
    """Reads cells of tables; see `stream.ImageReader`. An address is (which table, row)."""

    def __init__(self, root: Path, shards: Sequence[Path], spec: DataSpec) -> None:
        self._root, self._shards, self._spec = root, shards, spec
        self._open: OrderedDict[int, _Table] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return TableReader, (self._root, self._shards, self._spec)

    def open(self, place: int) -> _Table:
        """Open one of the tables. Raises PictureError if it is corrupt, DataError if it cannot be opened now."""
        if place not in self._open:
            path = self._shards[place]
            try:
                self._open[place] = _Table(path)
            except Exception as error:  # pyarrow's errors have several bases
                if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                    reason = getattr(error, "strerror", None) or "out of memory"
                    raise DataError(f"{path} cannot be opened ({reason}); load the faces again") from None
                raise PictureError(f"{path.name}, which cannot be read: {_shorten(error)}") from None
            while len(self._open) > TABLES_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(place)
        return self._open[place]

    @functools.cached_property
    def columns(self) -> tuple[str, str]:
        """Return the columns of the image and of the label, from the first readable table."""
        for place in range(len(self._shards)):
            with contextlib.suppress(PictureError):
                return _choose_columns(self.open(place).schema, self._spec)
        raise DataError(f"data.root={self._root} has no table that can be read")

    def read(self, address: np.ndarray) -> bytes:
        """Read one image's file. Raises PictureError if it is missing or corrupt."""
        place, row = map(int, address)
        try:
            value = self.open(place).read_cell(self.columns[0], row)
        except PictureError:
            raise
        except DataError as error:
            raise OSError(errno.EIO, str(error)) from None
        except (OSError, MemoryError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise PictureError(f"the table is damaged there: {_shorten(error)}") from None
        except Exception as error:
            raise PictureError(f"the table is damaged there: {_shorten(error)}") from None
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                raise PictureError(
                    f"the table has only its path, {value['path']}; embed the images with embed_table_storage"
                )
            value = value.get("bytes")
        if value is None:
            raise PictureError("the table has no image in this row")
        return bytes(value)


class TableSource:
    """The images of tables; see `stream.ImageSource`. Names are `table/row`."""

    def __init__(self, root: Path, shards: Sequence[Path], notes: Sequence[str], spec: DataSpec) -> None:
        self.reader = TableReader(root, shards, spec)
        self._notes = list(notes)
        self.label_names: Mapping[int, str] = {}
        self.names: list[str] = []
        self.labels: list[Label] = []
        places: list[tuple[int, int]] = []
        types: list[Any] = []  # the first table's
        odd = []
        for place, path in enumerate(shards):
            try:
                table = self.reader.open(place)
            except PictureError as error:
                self._notes.append(f"skipped {error}")
                continue
            label = self.reader.columns[1]
            if not types:
                features = _read_features(table.schema)
                self.label_names = dict(enumerate(features.get(label, {}).get("names", [])))
                first, types = path, self._get_types(table)
            if self._get_types(table) != types:
                odd.append(path.name)
            stem = table.path.relative_to(root).with_suffix("")
            try:
                labels = table.read_column(label)
            except Exception as error:
                self._notes.append(f"skipped {table.path.name}, whose labels cannot be read: {_shorten(error)}")
                continue
            self.labels += labels
            self.names += [f"{stem}/{row:08d}" for row in range(len(labels))]
            places += [(place, row) for row in range(len(labels))]
        if not types:
            raise DataError(f"data.root={root} has no table that can be read ({'; '.join(self._notes)})")
        if odd:
            raise DataError(f"data.root={root} has tables whose columns differ from {first.name}'s: {list_names(odd)}")
        self.addresses = np.array(places, np.int64).reshape(-1, 2)

    def _get_types(self, table: _Table) -> list[Any]:
        schema = table.schema
        return [schema.field(name).type if name in schema.names else None for name in self.reader.columns]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Return notes on skipped tables."""
        return self._notes


class _Table:
    """One file. For Parquet the last requested row group is cached; Arrow is memory-mapped."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self.path = path
        self._whole: Any = None
        if path.suffix.lower() == ".parquet":
            self._file = pyarrow.parquet.ParquetFile(path)
            self.schema = self._file.schema_arrow
            sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
            self._starts = list(itertools.accumulate(sizes, initial=0))[:-1]
            self._group, self._rows = -1, None
            return
        source = pyarrow.memory_map(str(path))
        try:
            self._whole = pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:  # Arrow's other file format
            self._whole = pyarrow.ipc.open_file(source).read_all()
        self.schema = self._whole.schema

    def read_column(self, name: str) -> list[Any]:
        """Return all values of a column."""
        table = self._file.read(columns=[name]) if self._whole is None else self._whole
        values: list[Any] = table.column(name).to_pylist()
        return values

    def read_cell(self, name: str, row: int) -> Any:
        """Return one value of the image column."""
        if self._whole is not None:
            return self._whole.column(name)[row].as_py()
        # An empty group starts at the same row as the next one.
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group:
            self._rows = self._file.read_row_group(group, columns=[name]).column(name)
            self._group = group
        return self._rows[row - self._starts[group]].as_py()  # type: ignore[index]


def _read_features(schema: pyarrow.Schema) -> dict[str, Any]:
    """Return the metadata that `datasets` writes per column: `_type`, and `names` for classes; empty if there is
    none."""
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: of for name, of in written.items() if isinstance(of, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _choose_columns(schema: pyarrow.Schema, spec: DataSpec) -> tuple[str, str]:
    """Return the names of the image and label columns. Raises DataError as `choose_field` does."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(
                kind.field(i).name == "bytes" and holds_bytes(kind.field(i).type) for i in range(kind.num_fields)
            )
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def holds_label(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    features = _read_features(schema)
    images = [of.name for of in schema if holds_bytes(of.type)]
    labels = [of.name for of in schema if holds_label(of.type)]
    declared = [name for name in images if features.get(name, {}).get("_type") == "Image"]
    classes = [name for name in labels if features.get(name, {}).get("_type") == "ClassLabel"]
    image = choose_field("image_field", spec.image_field, images, ("image",), spec, declared)
    return image, choose_field("label_field", spec.label_field, labels, ("label",), spec, classes)


def _shorten(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
