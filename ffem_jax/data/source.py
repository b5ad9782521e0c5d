"""Encoded images by index, as the files of a large set hold them, and the faces that are made of them.

A format is one module with two classes: one that has what `ImageSource` names, and one that reads an image where the
first has found it (`ImageReader`). Selection, names of people, notes and the cache are here, the same for every format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ffem_jax.data import DataError, Faces
from ffem_jax.data.attributes import add_attributes
from ffem_jax.data.cache import load_cached, stat_files
from ffem_jax.data.decode import Picture, decode_faces, select_people, silence_pillow
from ffem_jax.data.listing import TABLE_NAME, list_names
from ffem_jax.data.memory import TooLargeError
from ffem_jax.data.stream import get_loading, open_streamed, survey
from ffem_jax.specs.data import DataSpec
from ffem_jax.text.names import tidy_name

# Whose face an image shows: a number, a name, or None where the set does not say.
Label = int | str | None

# What of Pillow's modes is 8-bit grey or colour.
PLAIN_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")


class ImageReader(Protocol):
    """Reads images where they lie. It opens the files and looks through none; pickled, it opens them anew."""

    def read(self, address: np.ndarray) -> bytes:
        """The file of one image: JPEG, PNG or another format of Pillow's.

        Args:
            address: int64 [number], as the source gives it.

        Raises:
            PictureError: it is broken, and stays so.
            OSError: it could not be read this time.
        """


class ImageSource(Protocol):
    """Encoded images in the order of their files. Nothing is decoded before it is asked for."""

    @property
    def names(self) -> Sequence[str]:
        """A name per image, each once: where in the set it is."""

    @property
    def labels(self) -> Sequence[Label]:
        """Whose face each image shows."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """The people's names by number, as far as the format has them."""

    @property
    def reader(self) -> ImageReader:
        """Reads an image by its address."""

    @property
    def addresses(self) -> np.ndarray:
        """Where each image lies, int64 [image, number]: the same for as long as the files stay as they are."""

    def __len__(self) -> int:
        """How many images there are."""

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """One line for each thing about the files that the user should know; asked for after the images are read.

        sizes: how many images of each (width, height) were read.
        """


def find_shards(spec: DataSpec, root: Path, endings: Sequence[str], wanted: str) -> tuple[list[Path], list[str]]:
    """The files that hold the set, sorted by name, and notes on files that are left out.

    They are those that `data.files` names (`*`, `?` and `[..]` match, `{000..012}` and `{a,b}` stand for each of them);
    without it, all files in `root` with one of `endings`; where some of these begin with `train`, those alone.

    Raises:
        DataError: there is none, or one that is named is missing.
    """
    if spec.files:
        found: set[Path] = set()
        for pattern in expand_braces(spec.files):
            try:
                here = [path for path in root.glob(pattern) if path.is_file()]
            except (ValueError, NotImplementedError) as error:
                raise DataError(f"data.files={spec.files!r} is no pattern of files below data.root ({error})") from None
            if not here:
                raise DataError(f"data.files={spec.files!r}: {root} has no file {pattern}")
            found |= set(here)
        return sorted(found), []
    shards = sorted(path for path in root.iterdir() if path.suffix.lower() in endings and path.is_file())
    if not shards:
        raise DataError(f"data.root={root} has no file that ends in {' or '.join(endings)}; {wanted}")
    training = [path for path in shards if path.name.startswith("train")]
    others = [path.name for path in shards if path not in training]
    if training and others:
        return training, [f"files that are left out: {list_names(others)}; data.files='*' takes all"]
    return shards, []


def expand_braces(pattern: str) -> list[str]:
    """`pattern` with each `{a,b}` and `{000..012}` written out, as a shell does it."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", found[1]):
        first, last = map(int, span.groups())
        width = len(span[1])
        choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return list(itertools.chain.from_iterable(expand_braces(before + choice + after) for choice in choices))


def choose_field(
    setting: str, named: str, possible: Sequence[str], usual: Sequence[str], spec: DataSpec, likely: Sequence[str] = ()
) -> str:
    """The field `named`, else the first `usual` one that is `possible`, else the only one that is `likely` or possible.

    Raises:
        DataError: `named` is not possible, or there is not one alone.
    """
    there = f"data={spec.name} has {', '.join(possible) or 'none'} that can be"
    if named:
        if named not in possible:
            raise DataError(f"data.{setting}={named!r}: {there}")
        return named
    for name in usual:
        if name in possible:
            return name
    for names in (likely, possible):
        if len(names) == 1:
            return names[0]
    raise DataError(f"data.{setting}=NAME must say which field is meant: {there}")


def load_source(
    spec: DataSpec,
    root: Path,
    files: Sequence[Path],
    open_source: Callable[[], ImageSource],
    open_reader: Callable[[], ImageReader],
) -> Faces:
    """The faces of a set that `open_source` opens, from the cache where it has them.

    Where they do not fit in the memory that is free they are streamed, unless `stream.choose_loading` says otherwise.

    Args:
        root: where `attributes.csv` may lie.
        files: all files that the set is read from.
        open_reader: opens what reads them, without looking through them.

    Raises:
        DataError: fewer than two people are left, the set does not fit in memory and is not to be streamed, or
            `open_source` raises it.
    """

    settings, open_once = [spec.builder, spec.split, spec.image_field, spec.label_field], functools.cache(open_source)
    faces = load_or_stream(
        spec,
        lambda: [str(root), settings, stat_files(files)],
        lambda: decode_source(open_once(), spec),
        open_once,
        open_reader,
    )
    if len(faces.people) < spec.least_people:
        reason = f" ({'; '.join(faces.notes)})" if faces.notes else ""
        raise DataError(
            f"data.root={root} has {len(faces.people)} of the at least {spec.least_people} people with data.min_images="
            f"{spec.min_images} readable images{reason}"
        )
    table = root / TABLE_NAME
    return add_attributes(faces, table, open_once().names if table.exists() else ())


def load_or_stream(
    spec: DataSpec,
    read_state: Callable[[], list[Any]],
    decode: Callable[[], Faces],
    open_source: Callable[[], ImageSource],
    open_reader: Callable[[], ImageReader],
    select: Callable[[ImageSource, DataSpec], Selection] | None = None,
) -> Faces:
    """The faces in memory or streamed, by `stream.choose_loading`; a process opens those that it streams once.

    Args:
        spec: data set, selection and resolution.
        read_state: gives whatever tells one state of the files from another, as JSON takes it.
        decode: decodes all of them; raises TooLargeError where they do not fit.
        open_source: the same images by index. open_reader: by where they lie.
        select: which of them are decoded; `select_images` unless said otherwise.
    """
    mode, key = get_loading().mode, repr((dataclasses.replace(spec, cache_dir=""), read_state()))
    if key in _streamed and mode != "memory":
        return _streamed[key]
    if mode != "stream":
        try:
            return load_cached(spec, read_state, lambda: _name_faults(spec, decode))
        except TooLargeError:
            if mode == "memory":
                raise
    faces = _name_faults(
        spec, lambda: stream_source(open_source, open_reader, spec, read_state, select or select_images)
    )
    _streamed.clear()
    _streamed[key] = faces
    return faces


# The faces that this process streams, by their spec and the state of their files: the trials of a sweep share them.
_streamed: dict[str, Faces] = {}


def _name_faults(spec: DataSpec, load: Callable[[], Faces]) -> Faces:
    try:
        return load()
    except OSError as error:  # of one image it is noted; here it is of the files' own lists
        raise DataError(f"data.root={spec.root} cannot be read ({error.strerror or error}); check the disk") from None


@dataclass
class Selection:
    """The people of a source that a DataSpec chooses, by how many images the files have of them.

    Args:
        people: the name of each label that is a person's.
        chosen: who is kept, in order.
        total: how many images are decoded at most.
        enough: after so many of a person the others are passed over; 0 reads all.
        notes: a line for each thing that was left out.
    """

    people: Mapping[Label, str]
    chosen: list[str]
    total: int
    enough: int
    notes: list[str]


def select_images(source: ImageSource, spec: DataSpec) -> Selection:
    """What of `source` is decoded: people are chosen before any image is."""
    notes: list[str] = []
    labels = Counter(source.labels)
    people = _name_people(labels, source.label_names, notes)
    counts: Counter[str] = Counter()
    for label, name in people.items():
        counts[name] += labels[label]
    named = {name: counts[name] for name in people.values()}
    chosen = select_people(named, spec)
    few = sum(count < spec.min_images for name, count in named.items() if name != spec.unlabelled)
    if few:
        notes.append(f"left out {few:,} of {len(named):,} people, with fewer than data.min_images={spec.min_images}")
    # min_images counts readable ones, so as many are read even where fewer are kept.
    enough = max(spec.max_images, spec.min_images) if spec.max_images else 0
    limits = {person: enough or named[person] for person in chosen} | {spec.unlabelled: named.get(spec.unlabelled, 0)}
    total = sum(min(named[person], limits[person]) for person in chosen)
    return Selection(people, chosen, total, enough, notes)


def decode_source(source: ImageSource, spec: DataSpec) -> Faces:
    """The faces that `spec` selects from `source`, decoded, in the order of the files.

    Of each person the first `data.max_images` that can be read are kept.

    Raises:
        TooLargeError: they do not fit in the memory that is free.
    """
    return _decode(source, spec, select_images(source, spec))


def stream_source(
    open_source: Callable[[], ImageSource],
    open_reader: Callable[[], ImageReader],
    spec: DataSpec,
    read_state: Callable[[], list[Any]],
    select: Callable[[ImageSource, DataSpec], Selection],
) -> Faces:
    """The faces that `decode_source` gives, their images left on the disk.

    All are decoded once, to find what can be read; the cache keeps what was found and where it lies.
    """

    def look_through() -> Faces:
        source = open_source()
        selection = select(source, spec)
        return survey(lambda pixels: _decode(source, spec, selection, pixels), source, selection.total, spec)

    surveyed = load_cached(spec, lambda: ["streamed, addresses", *read_state()], look_through)
    return open_streamed(surveyed, open_reader(), spec)


def _decode(source: ImageSource, spec: DataSpec, selection: Selection, images: Any = None) -> Faces:
    seen, chosen = _Survey(source), set(selection.chosen)
    faces = decode_faces(
        _list_pictures(seen, selection.people, chosen), selection.total, spec, people=selection.chosen,
        enough=selection.enough, images=images,
    )  # fmt: skip
    notes = (*source.describe(seen.sizes), *selection.notes, *seen.notes, *faces.notes)
    return dataclasses.replace(faces, notes=notes)


@dataclass
class _Survey:
    """What the images of a source turn out to be as they are read. odd: names by mode, of those that are converted."""

    source: ImageSource
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    odd: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def read(self, index: int) -> bytes:
        """The image's file, looked at."""
        data = self.source.reader.read(self.source.addresses[index])
        silence_pillow()
        with contextlib.suppress(Exception):  # what is no picture is told by its decoding
            image = Image.open(io.BytesIO(data))
            self.sizes[image.size] += 1
            if image.mode not in PLAIN_MODES:
                self.odd[image.mode].append(self.source.names[index])
        return data

    @property
    def notes(self) -> list[str]:
        """A line for each kind of image that is neither 8-bit grey nor 8-bit colour."""
        return [
            f"images in mode {mode} ({len(names):,}), which are converted to 8-bit RGB: {list_names(names)}"
            for mode, names in self.odd.items()
        ]


def _list_pictures(survey: _Survey, people: Mapping[Label, str], chosen: set[str]) -> Iterator[Picture]:
    source = survey.source
    for index, label in enumerate(source.labels):
        person = people.get(label, "")
        if person in chosen:
            yield Picture(person, source.names[index], functools.partial(survey.read, index))


def _is_nobody(label: Label) -> bool:
    """Whether the label stands for no person: sets write -1 where they do not tell."""
    return label is None or (label < 0 if isinstance(label, int) else not tidy_name(label))


def _name_people(counts: Counter[Label], label_names: Mapping[int, str], notes: list[str]) -> dict[Label, str]:
    """The name of each label that is a person's, in order: numbers by size, then names by letter; and notes."""
    nobody = {label: count for label, count in counts.items() if _is_nobody(label)}
    if nobody:
        shown = ", ".join("none" if label is None else repr(label) for label in nobody)
        notes.append(f"skipped {sum(nobody.values()):,} images whose label is nobody's ({shown})")
    numbers = sorted(label for label in counts if isinstance(label, int) and label not in nobody)
    texts = sorted(label for label in counts if isinstance(label, str) and label not in nobody)
    last = numbers[-1] if numbers else -1
    if len(numbers) != last + 1:
        notes.append(
            f"the labels are {len(numbers):,} of the numbers {numbers[0]} to {numbers[-1]} and not 0 to "
            f"{len(numbers) - 1}; they are counted anew, in this order"
        )
    names: dict[Label, str] = {n: tidy_name(label_names.get(n, "")) or str(n) for n in numbers}
    names |= {text: tidy_name(text) for text in texts}
    return _tell_apart(names, notes)


def _tell_apart(names: dict[Label, str], notes: list[str]) -> dict[Label, str]:
    """`names` by label, where one name is two numbers' with the number added. Equal texts are one person."""
    taken = Counter(names.values())
    alike = {label for label, name in names.items() if taken[name] > 1 and isinstance(label, int)}
    if alike:
        shared = sorted({names[label] for label in alike})
        notes.append(f"several labels have one name and are told apart by number: {list_names(shared)}")
    return {label: f"{name} ({label})" if label in alike else name for label, name in names.items()}
