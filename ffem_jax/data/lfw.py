"""Labeled Faces in the Wild (Huang et al., 2007): `lfw`, `lfw52`, the paper's experiment on public faces, and
`lfw_rest`, all other people, for pretraining.

Loaded from a folder (`spec.root`, else FFEM_LFW_ROOT), an archive in it, or a download, through a TensorFlow Datasets
builder that needs no TensorFlow, into cached uint8 arrays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
import tarfile
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from filelock import FileLock

from ffem_jax.data import DataError, Faces
from ffem_jax.data.attributes import add_attributes
from ffem_jax.data.cache import find_cache_folder, hash_text, load_cached, make_cache_folder, stat_files
from ffem_jax.data.decode import Picture, decode_faces, look_at, select_people
from ffem_jax.data.download import Download, download_archive
from ffem_jax.data.listing import TABLE_NAME, Listing, list_people
from ffem_jax.data.listing import list_names as join_names
from ffem_jax.specs.trial import DataSpec
from ffem_jax.text.names import decode_file_name, tidy_name

if TYPE_CHECKING:
    from ffem_jax.data.lfw_builder import PreparedFaces, ReadPictures

# Address and checksum from scikit-learn.
FUNNELED = Download(
    name="lfw-funneled.tgz",
    url="https://ndownloader.figshare.com/files/5976015",
    size_bytes=243_346_528,
    sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
)

PAIRS = Download(
    name="pairs.txt",
    url="https://ndownloader.figshare.com/files/5976006",
    size_bytes=155_335,
    sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
)

# Published folders and archives -> edition: the same people and files, aligned differently.
VARIANTS = {"lfw-deepfunneled": "deepfunneled", "lfw_funneled": "funneled", "lfw": "original"}
ARCHIVES = {"lfw-deepfunneled.tgz": "deepfunneled", "lfw-funneled.tgz": "funneled", "lfw.tgz": "original"}

PICTURE_NAME = "*/*_[0-9][0-9][0-9][0-9].jpg"
# Entries of an archive that are meant to be images, also in capitals.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".pgm", ".webp", ".bmp", ".tif", ".tiff", ".gif")

LFW52_PEOPLE = 52
LFW52_MAX_IMAGES = 30
LFW52_IMAGES = 1467


@dataclass(frozen=True)
class Source:
    """The location of the images.

    Args:
        path: the folder with the people's folders, or an archive of it.
        variant: deepfunneled, funneled, original, or empty if the name does not tell.
    """

    path: Path
    variant: str

    @property
    def attributes(self) -> Path:
        """The table of attributes, beside the people's folder or the archive."""
        return self.path.parent / TABLE_NAME


def load(spec: DataSpec) -> Faces:
    """Load LFW as bytes, with its attributes.

    `lfw` is selected by `spec`. `lfw52` has the 52 people with the most images, ties by name, and the first 30 images
    of each by file name: 1,467 images. `lfw_rest` is selected from the people not in `lfw52`.

    Args:
        spec: data set, selection and resolution in pixels per side.

    Returns:
        The faces, uint8 [image, R, R, 3]. Every column of an `attributes.csv` beside the people's folder is an
        attribute.

    Raises:
        DataError: LFW is not found, cannot be downloaded or read, or `lfw52` is given conflicting settings.

    References:
        Huang et al., Labeled Faces in the Wild, technical report 07-49, University of Massachusetts, 2007.
    """
    if spec.name == "lfw52":
        if spec.people not in (0, LFW52_PEOPLE) or spec.max_images not in (0, LFW52_MAX_IMAGES):
            raise DataError(
                f"data=lfw52 is {LFW52_PEOPLE} people with {LFW52_MAX_IMAGES} images at most; for data.people="
                f"{spec.people} and data.max_images={spec.max_images} use data=lfw"
            )
        spec = dataclasses.replace(spec, people=LFW52_PEOPLE, max_images=LFW52_MAX_IMAGES, min_images=1)
    source = find_source(spec)
    listing = _list_pictures(source.path) if source.path.is_dir() else None

    def read_source() -> list[object]:
        if listing is None:
            return [str(source.path), source.variant, stat_files([source.path])]
        selected = set(select_names(listing.names, spec))
        files = (picture.path for picture in listing.pictures if picture.name in selected)
        return [str(source.path), source.variant, hash_text(listing.names), stat_files(files)]

    faces = load_cached(spec, read_source, lambda: _decode(source, listing, spec))
    faces = dataclasses.replace(faces, notes=(*_name_other_editions(spec, source), *faces.notes))
    if listing:
        notes, unread = (*listing.notes, *faces.notes), (*listing.unread, *faces.unread)
        faces = dataclasses.replace(faces, notes=notes, unread=unread)
    return add_attributes(faces, source.attributes, listing.names if listing else ())


def find_source(spec: DataSpec) -> Source:
    """Find the images on this machine, or download them.

    Raises:
        DataError: neither is possible.
    """
    named = spec.root or os.environ.get("FFEM_LFW_ROOT", "")
    if not named:
        return Source(download_archive(FUNNELED, find_cache_folder(spec)), "funneled")
    root = Path(os.path.expanduser(named)).absolute()
    wanted = f"it must contain one of {', '.join(VARIANTS)}, one of {', '.join(ARCHIVES)}, or the people's folders"
    if not root.is_dir():
        raise DataError(f"data.root={root} is {'not a folder' if root.exists() else 'missing'}; {wanted}")
    for name in (root.name, *VARIANTS):
        for folder in (root / name, root / name / name):  # some archives nest a folder in one of the same name
            if _holds_people(folder):
                return Source(folder, VARIANTS.get(name, ""))
    if _holds_people(root):
        return Source(root, VARIANTS.get(root.name, ""))
    for name, variant in ARCHIVES.items():
        if (root / name).is_file():
            return Source(root / name, variant)
    raise DataError(f"data.root={root} does not contain LFW; {wanted}; data.root='' downloads it")


def _name_other_editions(spec: DataSpec, source: Source) -> list[str]:
    """Return a note if `data.root` contains several editions, of which one is used."""
    root = Path(os.path.expanduser(spec.root or os.environ.get("FFEM_LFW_ROOT", "")))
    if root == Path():
        return []
    editions = {**VARIANTS, **ARCHIVES}
    others = [name for name, variant in editions.items() if variant != source.variant and (root / name).exists()]
    inside = source.path.name in editions and source.path.parent == root.absolute()
    return [f"{source.path.name} is used, not {join_names(others)}, which also exists"] if others and inside else []


def find_pairs(spec: DataSpec) -> Path:
    """Return the path of View 2's pairs.txt: beside the people's folder or in data.root; it is downloaded if missing.

    Raises:
        DataError: as `find_source` does.
    """
    named = spec.root or os.environ.get("FFEM_LFW_ROOT", "")
    if not named:
        return download_archive(PAIRS, find_cache_folder(spec))
    root = Path(os.path.expanduser(named)).absolute()
    beside = find_source(spec).path.parent / PAIRS.name
    return beside if beside.exists() else root / PAIRS.name


def _holds_people(folder: Path) -> bool:
    return next(folder.glob(PICTURE_NAME), None) is not None


def list_names(folder: Path) -> list[str]:
    """List `person/file` of every image in the people's `folder`, in order.

    Raises:
        DataError: the folder is unreadable.
    """
    return _list_pictures(folder).names


def _list_pictures(folder: Path) -> Listing:
    try:
        return list_people(folder, (".jpg",), "jpg", any_case=False)
    except OSError as error:
        raise DataError(f"data.root: {folder} cannot be read ({error}); check its permissions") from None


def select_names(names: list[str], spec: DataSpec) -> list[str]:
    """Select from `names` (`person/file`, in order) according to `spec`, in order and grouped by person."""
    files = defaultdict(list)
    for name in names:
        files[name_person(name)].append(name)
    if spec.name == "lfw_rest":
        counts = {person: len(own) for person, own in files.items()}
        for person in select_people(counts, DataSpec(people=LFW52_PEOPLE, min_images=1)):
            del files[person]
    people = select_people({person: len(own) for person, own in files.items()}, spec)
    return [name for person in people for name in files[person][: spec.limit_images(person)]]


def name_person(name: str) -> str:
    """Return the person in the image `name` (`person/file`)."""
    folder = name.split("/")[0]
    return tidy_name(folder) or folder


def read_folder(listing: Listing) -> Iterator[tuple[str, bytes]]:
    """Yield (`person/file`, bytes) of every listed image.

    Raises:
        DataError: an image is unreadable; the prepared copy would lack it permanently.
    """
    for picture in listing.pictures:
        try:
            yield picture.name, picture.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{picture.path} cannot be read ({error.strerror}); check the disk and its permissions, or move it away"
            ) from None


def read_archive(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield (`person/file`, bytes) of every image in a .tgz, read sequentially without unpacking.

    Returns:
        One pair per image. The bytes are None for an image at another depth than most, or one that is not a plain .jpg
        file.

    Raises:
        DataError: the archive is corrupt or unreadable.
    """
    with _explain_damage(path):
        depths = Counter(len(where.parts) for where, _, _ in _read_members(path) if where.match(PICTURE_NAME))
        depth = max(depths, key=lambda depth: depths[depth], default=0)
        for where, archive, member in _read_members(path):
            plain = member.isfile() and where.suffix == ".jpg" and not where.name.startswith(".")
            if plain and len(where.parts) == depth:
                file = archive.extractfile(member)
                assert file is not None  # a regular file has contents
                yield "/".join(where.parts[-2:]), file.read()
            else:
                yield str(where), None


def _read_members(path: Path) -> Iterator[tuple[PurePosixPath, tarfile.TarFile, tarfile.TarInfo]]:
    """Yield each image's path in the archive, and the archive positioned to read it."""
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            where = PurePosixPath(decode_file_name(member.name))
            if where.suffix.lower() in PICTURE_ENDINGS and not member.isdir():
                yield where, archive, member


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is corrupt ({error}); delete it and fetch {FUNNELED.url} again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None


def _decode(source: Source, listing: Listing | None, spec: DataSpec) -> Faces:
    # Imported only for preparation: importing TFDS takes longer than loading cached faces.
    from ffem_jax.data.lfw_builder import prepare_faces

    if listing:
        files = [picture.path for picture in listing.pictures]
        read_pictures: ReadPictures = partial(read_folder, listing)
    else:
        files = [source.path]
        read_pictures = partial(read_archive, source.path)
    with contextlib.ExitStack() as stack:
        try:
            folder = make_cache_folder(spec) / f"lfw-{hash_text([str(source.path), stat_files(files)])}"
            stack.enter_context(FileLock(f"{folder}.lock"))  # another resolution may be preparing the same
        except OSError:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ffem-lfw-")))
        try:
            return _decode_prepared(prepare_faces(folder, read_pictures), source, listing, spec)
        except OSError as error:
            raise DataError(
                f"LFW could not be prepared in {folder} ({error}); it takes 300 MB: make room or set data.cache_dir"
            ) from None


def _decode_prepared(prepared: PreparedFaces, source: Source, listing: Listing | None, spec: DataSpec) -> Faces:
    everybody = listing.names if listing else prepared.names
    names = select_names(everybody, spec)
    pictures = [
        Picture(name_person(name), name, partial(look_at, partial(prepared.read, name), spec)) for name in names
    ]
    faces = decode_faces(pictures, len(pictures), spec)
    notes = list(faces.notes)
    if prepared.passed_over:
        notes.append(
            f"skipped in {source.path.name} ({len(prepared.passed_over):,}), not of the form person/*.jpg: "
            f"{join_names(prepared.passed_over)}"
        )
    people = Counter(map(name_person, everybody))
    few = sum(count < spec.min_images for count in people.values())
    if few:
        notes.append(f"left out {few:,} of {len(people):,} people, with fewer than {spec.min_images} images")
    if spec.name == "lfw52" and (len(faces.people), len(faces.names)) != (LFW52_PEOPLE, LFW52_IMAGES):
        notes.append(
            f"lfw52 is incomplete: {len(faces.people)} people and {len(faces.names):,} images "
            f"instead of {LFW52_PEOPLE} and {LFW52_IMAGES:,}"
        )
    return dataclasses.replace(faces, variant=source.variant, notes=tuple(notes))
