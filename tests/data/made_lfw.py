"""Made-up copies of the layout of Labeled Faces in the Wild."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ffem_jax.specs.trial import DataSpec

PEOPLE = {"Ann_Lee": 3, "Bob_Ray": 5, "Cy_Coe": 1, "Dan_Day": 3}


def spec_of(root, **options) -> DataSpec:
    return DataSpec(**{"name": "lfw", "root": str(root), "resolution": 16, **options})


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    return archive
