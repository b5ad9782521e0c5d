"""Lists the images in a folder of people's folders, and counts and names everything skipped."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ffem_jax.data import DataError
from ffem_jax.text.display import show_unseen
from ffem_jax.text.names import decode_file_name, fold_name, tidy_name

TABLE_NAME = "attributes.csv"

NAMED_AT_MOST = 20

FILE, FOLDER, DEAD_LINK, SPECIAL = "file", "folder", "dead link", "special"


@dataclass(frozen=True)
class PictureFile:
    """An image on disk. person: the normalised name of its folder; name: `folder/file` as on disk."""

    person: str
    name: str
    folder: Path
    file: str

    @property
    def path(self) -> Path:
        """Its path."""
        return self.folder / self.file


@dataclass(frozen=True)
class Listing:
    """The result of `list_people`.

    Args:
        pictures: in order of folder and file, grouped by person.
        folders: number of people's folders.
        loose: number of images beside them.
        notes: one line for each kind of skipped entry.
        unread: names of entries that could not be accessed this time.
    """

    pictures: tuple[PictureFile, ...]
    folders: int
    loose: int
    notes: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The images' names, in order."""
        return [picture.name for picture in self.pictures]


@dataclass
class _PassedOver:
    """The names of skipped entries.

    others: number of files and hidden entries by extension; below: images in sub-folders; unread: name -> reason.
    """

    others: Counter[str] = field(default_factory=Counter)
    below: int = 0
    sub_folders: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)

    def describe(self, kinds: str) -> Iterator[str]:
        """Yield a note for each kind that occurs; kinds: the supported formats, in words."""
        if self.sub_folders:
            yield (
                f"skipped sub-folders ({len(self.sub_folders)}, with {self.below} images): "
                f"{list_names(self.sub_folders)}; move the images up into the person's folder"
            )
        if self.dead:
            yield f"skipped broken links ({len(self.dead)}): {list_names(self.dead)}"
        if self.unread:
            reasons = [f"{name} ({reason})" for name, reason in self.unread.items()]
            yield f"could not be accessed this time ({len(reasons)}): {list_names(reasons)}"
        if self.special:
            yield f"skipped entries that are neither file nor folder ({len(self.special)}): {list_names(self.special)}"
        if self.loose:
            yield (
                f"skipped images beside the people's folders ({len(self.loose)}): {list_names(self.loose)}; "
                "put each into its person's folder"
            )
        if self.tables:
            yield f"skipped {list_names(self.tables)}: the table of attributes must be named {TABLE_NAME}"
        if self.others:
            counts = ", ".join(f"{list_names([ending])} ({count})" for ending, count in sorted(self.others.items()))
            yield f"skipped files that are not {kinds}: {counts}"
        if self.bare:
            yield f"left out, without any image: {list_names(self.bare)}"


def list_names(names: Sequence[str]) -> str:
    """Join names with commas: the first `NAMED_AT_MOST`, then the number of others."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(map(show_unseen, names[:NAMED_AT_MOST])) + (f" and {more:,} more" if more > 0 else "")


def list_people(root: Path, endings: Collection[str], kinds: str, any_case: bool = True) -> Listing:
    """List the images `root/person/file`, with notes on everything else. No file is opened.

    Folders whose names are equal after normalisation are one person.

    Args:
        root: the folder of the people's folders.
        endings: extensions of image files, such as `.jpg`.
        kinds: the extensions in words.
        any_case: whether `.JPG` counts as `.jpg`.

    Raises:
        OSError: `root` itself cannot be read.
        DataError: two names have the same printable form.
    """

    def is_picture(name: str) -> bool:
        ending = os.path.splitext(name)[1]
        return (ending.lower() if any_case else ending) in endings

    passed = _PassedOver()
    folders = _list_folders(root, is_picture, passed)
    spellings: dict[str, list[str]] = defaultdict(list)
    pictures: dict[str, list[PictureFile]] = {}
    for folder in folders:
        called = decode_file_name(folder)
        person = tidy_name(called) or called
        spellings[person].append(folder)
        here = root / folder
        files = _list_files(here, called, is_picture, passed)
        pictures.setdefault(person, []).extend(
            PictureFile(person, f"{called}/{decode_file_name(file)}", here, file) for file in files
        )
    together = tuple(picture for own in pictures.values() for picture in own)
    for name, count in Counter(picture.name for picture in together).items():
        if count > 1:
            raise DataError(
                f"{root}: {count} images have the printable name {list_names([name])}; rename those that are not UTF-8"
            )
    notes = (*passed.describe(kinds), *_describe_names(spellings, together))
    return Listing(together, len(folders), len(passed.loose), notes, tuple(passed.unread))


def _list_folders(root: Path, is_picture: Callable[[str], bool], passed: _PassedOver) -> list[str]:
    """Return the people's folders, sorted by name."""
    folders = []
    for entry in _scan(root):
        name, kind = entry.name, _look(entry)
        if name.startswith("."):
            passed.others["hidden folders"] += kind == FOLDER
        elif kind == FOLDER:
            folders.append(name)
        elif kind == FILE and is_picture(name):
            passed.loose.append(decode_file_name(name))
        elif kind == FILE and name.lower() == TABLE_NAME and name != TABLE_NAME:
            passed.tables.append(name)
        elif kind != FILE:
            _sort_out(decode_file_name(name), kind, passed)
    passed.others += Counter()  # drops zero counts
    return folders


def _list_files(folder: Path, called: str, is_picture: Callable[[str], bool], passed: _PassedOver) -> list[str]:
    """Return the images in one person's `folder`, sorted by name."""
    try:
        entries = _scan(folder)
    except OSError as error:
        passed.unread[called] = error.strerror or str(error)
        return []
    found = []
    for entry in entries:
        name, kind = entry.name, _look(entry)
        if name.startswith("."):
            passed.others["hidden folders" if kind == FOLDER else "hidden files"] += 1
        elif kind == FILE and is_picture(name):
            found.append(name)
        elif kind == FILE:
            passed.others[_name_ending(name, is_picture)] += 1
        elif kind == FOLDER:
            below = f"{called}/{decode_file_name(name)}"
            inside = sum(is_picture(file) for _, _, files in os.walk(entry.path) for file in files if file[0] != ".")
            passed.below += inside
            passed.sub_folders.append(f"{below} ({inside})")
        else:
            _sort_out(f"{called}/{decode_file_name(name)}", kind, passed)
    if not found:
        passed.bare.append(called)
    return found


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of `folder`, sorted by UTF-8 name, so that people have the same order in every locale."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name).decode("utf-8", "surrogateescape"))


def _look(entry: os.DirEntry[str]) -> str:
    """Return the kind of the entry, or of a link's target; or the reason why it is unknown."""
    try:
        if entry.is_file(follow_symlinks=False):
            return FILE  # known from the folder, without accessing the file
        mode = os.stat(entry.path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and entry.is_symlink():
            return DEAD_LINK
        return error.strerror or str(error)
    return FILE if stat.S_ISREG(mode) else FOLDER if stat.S_ISDIR(mode) else SPECIAL


def _sort_out(called: str, kind: str, passed: _PassedOver) -> None:
    if kind == DEAD_LINK:
        passed.dead.append(called)
    elif kind == SPECIAL:
        passed.special.append(called)
    else:
        passed.unread[called] = kind


def _name_ending(name: str, is_picture: Callable[[str], bool]) -> str:
    ending = decode_file_name(os.path.splitext(name)[1])
    if is_picture(name.lower()):
        return ending  # rejected for its capitals, so show them
    return ending.lower() or "no ending"


def _describe_names(spellings: Mapping[str, Sequence[str]], pictures: Sequence[PictureFile]) -> list[str]:
    """Return notes on people with several folders, and on names that are not UTF-8. spellings: person -> folders on
    disk."""
    several = {person: folders for person, folders in spellings.items() if len(folders) > 1}
    notes = []
    if several:
        merged = [f"{person} is {' and '.join(map(ascii, folders))}" for person, folders in several.items()]
        notes.append(f"folders merged into one person: {list_names(merged)}")
    alike: dict[str, list[str]] = defaultdict(list)
    for person in spellings:
        alike[fold_name(person)].append(person)
    twins = [" and ".join(map(ascii, group)) for group in alike.values() if len(group) > 1]
    if twins:
        notes.append(f"similar names, kept as different people: {list_names(twins)}")
    odd = [person for person, folders in spellings.items() if any(map(_is_undecodable, folders))]
    files = [picture.name for picture in pictures if _is_undecodable(picture.file)]
    if odd or files:
        notes.append(
            f"names that are not UTF-8 ({len(odd) + len(files)}), shown with \\xNN for invalid bytes: "
            f"{list_names([*odd, *files])}; rename them, for example with convmv"
        )
    for person in odd:
        guess = tidy_name(os.fsencode(spellings[person][0]).decode("latin-1"))
        if guess in spellings:
            notes.append(f"{list_names([person])} may be {list_names([guess])} in Latin-1; they are kept as two people")
    return notes


def _is_undecodable(name: str) -> bool:
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
