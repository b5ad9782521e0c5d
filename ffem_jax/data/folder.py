"""Anyone's faces: `DIR/person/*.jpg|jpeg|png|pgm|webp`, any size, grey or colour."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from ffem_jax.data import DataError, Faces
from ffem_jax.data.cache import load_cached, stat_files
from ffem_jax.data.decode import Picture, decode_faces, list_names, read_attributes
from ffem_jax.spec import DataSpec

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".webp"})
LAYOUT = "it must hold one folder a person, DIR/person/*.jpg (or jpeg, png, pgm, webp)"


def load(spec: DataSpec) -> Faces:
    """The faces below `spec.root`, with the columns of `attributes.csv` beside the people where there is one.

    Hidden files are passed over. Raises DataError for a folder that is missing, holds no person's folder, or
    leaves fewer than two people.
    """
    faces = load_people(spec)
    if len(faces.people) < 2:
        reason = f" ({faces.notes[0]})" if faces.notes else ""
        raise DataError(
            f"data.root={_find_root(spec)} has {len(faces.people)} of the at least 2 people with data.min_images="
            f"{spec.min_images} readable images{reason}; {LAYOUT}"
        )
    return faces


def load_people(spec: DataSpec) -> Faces:
    """As `load`, but one person, or nobody whose pictures can be read, is no error: there is nobody to tell apart."""
    root = _find_root(spec)
    table = root / "attributes.csv"
    try:
        paths, notes = list_pictures(root, f"data.root={root}")
        pictures = [Picture(person, f"{person}/{path.name}", path.read_bytes) for person, path in paths]
        source = [str(root), stat_files([path for _, path in paths] + [table])]
    except OSError as error:
        raise DataError(f"data.root={root} cannot be read: {error}; check its permissions") from None

    def decode() -> Faces:
        faces = decode_faces(pictures, len(pictures), spec)
        attributes, trouble = read_attributes(table, faces.names)
        return dataclasses.replace(faces, attributes=attributes, notes=(*faces.notes, *trouble))

    faces = load_cached(spec, source, decode)
    return dataclasses.replace(faces, notes=(*notes, *faces.notes))


def _find_root(spec: DataSpec) -> Path:
    if not spec.root:
        raise DataError(f"data=folder needs data.root=DIR; {LAYOUT}")
    root = Path(spec.root).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"data.root={root} is {'no folder' if root.exists() else 'not there'}; {LAYOUT}")
    return root


def list_pictures(root: Path, called: str) -> tuple[list[tuple[str, Path]], tuple[str, ...]]:
    """(person, path) of every picture in order of person and file name, and notes on other files.

    called: what a message calls `root`. Raises DataError where there is no picture in a person's folder, and OSError
    where a folder cannot be read.
    """
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        loose = sum(entry.suffix.lower() in ENDINGS for entry in root.iterdir())
        raise DataError(f"{called} {f'has {loose} pictures but no folders' if loose else 'is empty'}; {LAYOUT}")
    paths: list[tuple[str, Path]] = []
    others: Counter[str] = Counter()
    without = []
    for folder in folders:
        files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file())
        found = [(folder.name, path) for path in files if path.suffix.lower() in ENDINGS]
        others.update(path.suffix.lower() or "no ending" for path in files if path.suffix.lower() not in ENDINGS)
        paths += found
        if not found:
            without.append(folder.name)
    if not paths:
        raise DataError(f"{called} has no picture in its {len(folders)} folders; {LAYOUT}")
    notes = []
    if others:
        kinds = ", ".join(f"{ending} ({count})" for ending, count in sorted(others.items()))
        notes.append(f"passed over files that are no jpg, jpeg, png, pgm or webp: {kinds}")
    if without:
        notes.append(f"left out, with no picture at all: {list_names(without)}")
    return paths, tuple(notes)
