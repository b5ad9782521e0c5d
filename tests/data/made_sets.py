"""Large sets in the field's formats, written byte by byte from the formats' descriptions, of drawn faces."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ffem_jax.data import Faces, load_faces
from ffem_jax.data.read_ahead import choose_loading
from ffem_jax.specs.data import DataSpec

NAMES = ["Ann", "Bo", "Cy"]

MAGIC = bytes([0x0A, 0x23, 0xD7, 0xCE])


def encode(pixels: np.ndarray | Image.Image, ending: str = "PNG") -> bytes:
    """A picture as a file; PNG keeps every pixel."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, ending)
    return file.getvalue()


def draw_faces(people: int = 3, images: int = 4, resolution: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Drawn faces, uint8 [image, R, R, 3], and their labels."""
    spec = DataSpec(name="synthetic", people=people, images_per_person=images, resolution=resolution, seed=seed)
    faces = load_faces(spec)
    return np.array(faces.images), np.array(faces.labels)


# ------------------------------------------------------------------------------------ RecordIO


def pack_record(content: bytes) -> bytes:
    """A record: in parts where the magic number stands in it at a multiple of 4."""
    cuts = [at for at in range(0, len(content) // 4 * 4, 4) if content[at : at + 4] == MAGIC]
    parts = [content[a:b] for a, b in zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(content)], strict=True)]
    out = b""
    for place, part in enumerate(parts):
        flag = 0 if not cuts else 1 if place == 0 else 3 if place == len(cuts) else 2
        out += MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def pack_image(image: bytes, label: float | Sequence[float], number: int = 0) -> bytes:
    """The content of a face's record, or without an image that of a header."""
    if isinstance(label, Sequence):
        head = struct.pack("<IfQQ", len(label), 0.0, number, 0) + struct.pack(f"<{len(label)}f", *label)
    else:
        head = struct.pack("<IfQQ", 0, label, number, 0)
    return head + image


def write_records(root: Path, contents: Sequence[bytes], people: int | None = None, side: int = 32) -> list[int]:
    """`root`/train.rec, .idx and, for a number of people, property. Returns where the records start."""
    root.mkdir(parents=True, exist_ok=True)
    starts, data = [], b""
    for content in contents:
        starts.append(len(data))
        data += pack_record(content)
    (root / "train.rec").write_bytes(data)
    (root / "train.idx").write_text("".join(f"{key}\t{start}\n" for key, start in enumerate(starts)))
    if people is not None:
        (root / "property").write_text(f"{people},{side},{side}\n")
    return starts


def make_contents(images: Sequence[bytes], labels: Sequence[int]) -> list[bytes]:
    """Record contents as insightface packs them: a head, the images sorted by person, a record of each person."""
    ends = len(images) + 1
    people = sorted(set(labels))
    contents = [pack_image(b"", [ends, ends + len(people)])]
    contents += [
        pack_image(image, float(label), key) for key, (image, label) in enumerate(zip(images, labels, strict=True), 1)
    ]
    for label in people:
        own = [key for key, one in enumerate(labels, 1) if one == label]
        contents.append(pack_image(b"", [own[0], own[-1] + 1]))
    return contents


def write_recordio(root: Path, people: int = 3, images: int = 4, resolution: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A whole set of drawn faces in `root`; returns what it holds."""
    pixels, labels = draw_faces(people, images, resolution)
    write_records(root, make_contents([encode(one) for one in pixels], labels.tolist()), people, resolution)
    return pixels, labels


# ---------------------------------------------------------------------------------- WebDataset


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A plain tar file of `files`, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


# ----------------------------------------------------------------------------------------- bins


def write_bin(
    path: Path, images: Sequence[bytes], same: Sequence[bool], protocol: int = pickle.HIGHEST_PROTOCOL
) -> Path:
    """insightface's evaluation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps((list(images), list(same)), protocol=protocol))
    return path


def draw_pairs(pairs: int = 20, resolution: int = 32, seed: int = 1) -> tuple[list[bytes], list[bool]]:
    """Encoded drawn faces, two for each pair, and whether they are of one person: every other pair is."""
    pixels, labels = draw_faces(pairs + 1, 2, resolution, seed)
    images: list[bytes] = []
    for pair in range(pairs):
        own = np.flatnonzero(labels == pair)
        other = own[1] if pair % 2 == 0 else np.flatnonzero(labels == pair + 1)[0]
        images += [encode(pixels[own[0]]), encode(pixels[other])]
    return images, [pair % 2 == 0 for pair in range(pairs)]


def describe_features(names: Sequence[str]) -> dict[bytes, bytes]:
    """The metadata that `datasets` writes into a table's schema."""
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def load(name: str, root: Path, **settings: Any) -> Faces:
    return load_faces(DataSpec(**{"name": name, "root": str(root), "resolution": 32, "min_images": 1} | settings))


def load_packed(root: Path, mode: str, processes: int = 0, **settings: Any) -> Faces:
    """A set in `root`, loaded as `run.load` = `mode` and `run.decode_processes` = `processes` say."""
    spec = {
        "name": "recordio",
        "root": str(root),
        "resolution": 32,
        "min_images": 1,
        "cache_dir": str(root.parent / "cache"),
    }
    with choose_loading(mode, processes):
        return load_faces(DataSpec(**spec | settings))


def write_shards(root: Path, images: Sequence[bytes], labels: Sequence[Any], kind: str = "cls", each: int = 5) -> None:
    for first in range(0, len(images), each):
        files = {}
        for place in range(first, min(first + each, len(images))):
            files[f"{place:04d}.png"] = images[place]
            label = labels[place]
            files[f"{place:04d}.{kind}"] = (json.dumps(label) if kind == "json" else str(label)).encode()
        write_tar(root / f"train-{first // each:03d}.tar", files)
