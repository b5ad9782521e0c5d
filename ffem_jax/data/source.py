"""Builds faces from encoded images by index, as stored in the files of a large set.

A format is one module with two classes: one implements `stream.ImageSource`, and the other reads an image from the
address found by the first (`stream.ImageReader`). Selection, people's names, notes and the cache are shared here by all
formats.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffem_jax.data import DataError, Faces
from ffem_jax.data.attributes import add_attributes
from ffem_jax.data.cache import CHANGED, load_cached, stat_files
from ffem_jax.data.decode import Looked, Picture, decode_faces, select_people
from ffem_jax.data.listing import TABLE_NAME, list_names
from ffem_jax.data.memory import TooLargeError
from ffem_jax.data.read_ahead import get_loading
from ffem_jax.data.stream import ImageReader, ImageSource, Label, LookedImages, open_streamed, survey
from ffem_jax.specs.data import DataSpec
from ffem_jax.text.names import tidy_name

# Pillow's modes with 8-bit grey or colour.
PLAIN_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")


def find_shards(spec: DataSpec, root: Path, endings: Sequence[str], wanted: str) -> tuple[list[Path], list[str]]:
    """List the files of the set, sorted by name, with notes on files left out.

    These are the files matched by `data.files` (`*`, `?` and `[..]` are wildcards, `{000..012}` and `{a,b}` expand);
    without it, all files in `root` with one of `endings`, or only those that start with `train` if there are any.

    Raises:
        DataError: there are none, or a named file is missing.
    """
    if spec.files:
        found: set[Path] = set()
        for pattern in expand_braces(spec.files):
            try:
                here = [path for path in root.glob(pattern) if path.is_file()]
            except (ValueError, NotImplementedError) as error:  # the second for an absolute pattern
                raise DataError(
                    f"data.files={spec.files!r} is not a valid file pattern below data.root ({error})"
                ) from None
            if not here:
                raise DataError(f"data.files={spec.files!r}: {root} has no file {pattern}")
            found |= set(here)
        return sorted(found), []
    shards = sorted(path for path in root.iterdir() if path.suffix.lower() in endings and path.is_file())
    if not shards:
        raise DataError(f"data.root={root} has no file with the extension {' or '.join(endings)}; {wanted}")
    training = [path for path in shards if path.name.startswith("train")]
    others = [path.name for path in shards if path not in training]
    if training and others:
        return training, [f"files left out: {list_names(others)}; data.files='*' uses all"]
    return shards, []


def expand_braces(pattern: str) -> list[str]:
    """Expand each `{a,b}` and `{000..012}` in `pattern`, as a shell does."""
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
    """Choose the field `named`, else the first of `usual` that is `possible`, else the only `likely` or possible one.

    Raises:
        DataError: `named` is not possible, or the choice is ambiguous.
    """
    there = f"data={spec.name} has {', '.join(possible) or 'none'} as possible fields"
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
    raise DataError(f"set data.{setting}=NAME to choose the field: {there}")


def load_source(
    spec: DataSpec,
    root: Path,
    files: Sequence[Path],
    open_source: Callable[[], ImageSource],
    open_reader: Callable[[], ImageReader],
) -> Faces:
    """Load the faces of the set opened by `open_source`, from the cache if possible.

    If they do not fit in free memory they are streamed, unless set otherwise by `read_ahead.choose_loading`.

    Args:
        root: folder of an optional `attributes.csv`.
        files: all files of the set.
        open_reader: opens their reader, without a scan.

    Raises:
        DataError: fewer than two people are left, the set does not fit in memory and may not be streamed, or
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
            f"data.root={root} has {len(faces.people)} of the required {spec.least_people} people with data.min_images="
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
    """Load faces into memory or stream them, following `read_ahead.choose_loading`; a process opens a streamed set
    once.

    Args:
        spec: data set, selection and resolution.
        read_state: returns a JSON-compatible value that identifies the state of the files.
        decode: decodes all of them; raises TooLargeError if they do not fit.
        open_source: opens the same images by index. open_reader: opens them by address.
        select: selects the images to decode; by default `select_images`.
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
    if not faces.unread and CHANGED not in faces.notes:
        _streamed.clear()
        _streamed[key] = faces
    return faces


# Streamed faces of this process, by spec and state of the files: the trials of a sweep share them.
_streamed: dict[str, Faces] = {}


def _name_faults(spec: DataSpec, load: Callable[[], Faces]) -> Faces:
    try:
        return load()
    except OSError as error:  # an image's error becomes a note; this one concerns the list of files
        raise DataError(f"data.root={spec.root} cannot be read ({error.strerror or error}); check the disk") from None


@dataclass
class Selection:
    """The people of a source selected by a DataSpec, according to their numbers of images in the files.

    Args:
        people: the name of each label that is a person.
        chosen: the selected people, in order.
        total: maximum number of images to decode.
        enough: after this many images of a person, the others are skipped; 0 reads all.
        notes: a line for each kind of omission.
    """

    people: Mapping[Label, str]
    chosen: list[str]
    total: int
    enough: int
    notes: list[str]


def select_images(source: ImageSource, spec: DataSpec) -> Selection:
    """Select the images of `source` to decode: people are selected before decoding."""
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
    # min_images counts readable images, so that many are read even if fewer are kept.
    enough = max(spec.max_images, spec.min_images) if spec.max_images else 0
    limits = {person: enough or named[person] for person in chosen} | {spec.unlabelled: named.get(spec.unlabelled, 0)}
    total = sum(min(named[person], limits[person]) for person in chosen)
    return Selection(people, chosen, total, enough, notes)


def decode_source(source: ImageSource, spec: DataSpec) -> Faces:
    """Decode the faces that `spec` selects from `source`, in the order of the files.

    Keeps the first `data.max_images` readable images of each person.

    Raises:
        TooLargeError: they do not fit in free memory.
    """
    return _decode(source, spec, select_images(source, spec))


def stream_source(
    open_source: Callable[[], ImageSource],
    open_reader: Callable[[], ImageReader],
    spec: DataSpec,
    read_state: Callable[[], list[Any]],
    select: Callable[[ImageSource, DataSpec], Selection],
) -> Faces:
    """Return the faces of `decode_source` with their images left on disk.

    All are decoded once, to find readable images; the cache keeps the findings and the addresses.
    """

    def look_through() -> Faces:
        source = open_source()
        selection = select(source, spec)
        decode = functools.partial(_decode, source, spec, selection)
        return survey(decode, source, selection.total, spec)

    surveyed = load_cached(spec, lambda: ["streamed, addresses", *read_state()], look_through)
    return open_streamed(surveyed, open_reader(), spec)


def _decode(
    source: ImageSource, spec: DataSpec, selection: Selection, images: Any = None, written: list[int] | None = None
) -> Faces:
    """Decode the selected faces, into `images` if given; `written` lists their indices in the source."""
    kept = set(selection.chosen)
    who = {index: selection.people.get(label, "") for index, label in enumerate(source.labels)}
    chosen = [index for index, person in who.items() if person in kept]
    seen = _Survey(source, chosen, spec, [] if written is None else written)
    pictures = (Picture(who[index], source.names[index], functools.partial(seen.look, index)) for index in chosen)
    faces = decode_faces(
        pictures, selection.total, spec, people=selection.chosen, enough=selection.enough, images=images
    )
    notes = (*source.describe(seen.sizes), *selection.notes, *seen.notes, *faces.notes)
    return dataclasses.replace(faces, notes=notes)


class _Survey:
    """The results of decoding a source's images.

    Args:
        source: the images.
        chosen: indices that may be decoded, in order.
        spec: gives the crop.
        whole: lists the decoded images that are intact.
    """

    def __init__(self, source: ImageSource, chosen: Sequence[int], spec: DataSpec, whole: list[int]) -> None:
        self.source, self.whole, self.sizes = source, whole, Counter[tuple[int, int]]()
        self._odd: dict[str, list[str]] = defaultdict(list)  # names by mode, for converted images
        self._images = LookedImages(source.reader, source.addresses, spec)
        self._ahead = self._images.look_ahead(chosen) if get_loading().processes else None

    def look(self, index: int) -> Looked:
        """Decode an image; indices must increase from call to call."""
        if self._ahead is None:
            looked = self._images.look(index)
        else:
            looked = next(looked for place, looked in self._ahead if place == index)
        if looked.pixels is not None:
            self.whole.append(index)
        if looked.mode:
            self.sizes[looked.size] += 1
            if looked.mode not in PLAIN_MODES:
                self._odd[looked.mode].append(self.source.names[index])
        return looked

    @property
    def notes(self) -> list[str]:
        """Return a note for each mode that is neither 8-bit grey nor 8-bit colour."""
        return [
            f"images in mode {mode} ({len(names):,}), converted to 8-bit RGB: {list_names(names)}"
            for mode, names in self._odd.items()
        ]


def _is_nobody(label: Label) -> bool:
    """Return whether the label means an unknown person, often written as -1."""
    return label is None or (label < 0 if isinstance(label, int) else not tidy_name(label))


def _name_people(counts: Counter[Label], label_names: Mapping[int, str], notes: list[str]) -> dict[Label, str]:
    """Return the name of each label that is a person, in order (numbers by value, then names alphabetically), and
    notes."""
    nobody = {label: count for label, count in counts.items() if _is_nobody(label)}
    if nobody:
        shown = ", ".join("none" if label is None else repr(label) for label in nobody)
        notes.append(f"skipped {sum(nobody.values()):,} images without an identity ({shown})")
    numbers = sorted(label for label in counts if isinstance(label, int) and label not in nobody)
    texts = sorted(label for label in counts if isinstance(label, str) and label not in nobody)
    last = numbers[-1] if numbers else -1
    if len(numbers) != last + 1:
        notes.append(
            f"the labels are {len(numbers):,} of the numbers {numbers[0]} to {numbers[-1]} instead of 0 to "
            f"{len(numbers) - 1}; they are renumbered in this order"
        )
    names: dict[Label, str] = {n: tidy_name(label_names.get(n, "")) or str(n) for n in numbers}
    names |= {text: tidy_name(text) for text in texts}
    return _tell_apart(names, notes)


def _tell_apart(names: dict[Label, str], notes: list[str]) -> dict[Label, str]:
    """Return `names` by label; a name shared by two numbers gets its number appended. Equal texts are one person."""
    taken = Counter(names.values())
    alike = {label for label, name in names.items() if taken[name] > 1 and isinstance(label, int)}
    if alike:
        shared = sorted({names[label] for label in alike})
        notes.append(f"labels with equal names, distinguished by number: {list_names(shared)}")
    return {label: f"{name} ({label})" if label in alike else name for label, name in names.items()}
