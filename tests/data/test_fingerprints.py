"""Golden fingerprints: the order of people and pictures, and so labels and keys, stays from release to release."""

from __future__ import annotations

import unicodedata

import pytest
from made_folders import make_picture

from ffem_jax.data import load_faces
from ffem_jax.specs.trial import DataSpec, TrialSpec, trial_key

# Josh comes after José as two code points and before it as one: names are tidied for show, and the order stays.
PEOPLE = ("Zoë", "adam", unicodedata.normalize("NFD", "José"), "Josh", "Ann  Lee", "Ann Abe", "李")


@pytest.fixture
def root(tmp_path):
    seed = 0
    for number, person in enumerate(PEOPLE):
        folder = tmp_path / "faces" / person
        folder.mkdir(parents=True)
        for name in ("b.PNG", "a.png", "10.pgm", "9.png", unicodedata.normalize("NFD", "é.png"))[: 3 + number % 3]:
            seed += 1
            image = make_picture(seed, (32, 32))
            (image.convert("L") if name.endswith("pgm") else image).save(folder / name)
    (tmp_path / "faces" / "adam" / "0.png").write_bytes(b"broken")
    return tmp_path / "faces"


@pytest.mark.parametrize(
    ("options", "fingerprint", "pictures", "key"),
    [
        ({}, "38e9484fa107cc8f", "bc40726f02b11d1a", "b240c45b2815bd0b"),
        ({"max_images": 2}, "d6e7862708ecdc78", "522be76161aec581", "aa9cf9a48a0204e7"),
        ({"people": 3}, "ea1f5c5e41147b06", "e18705aae5cd8514", "1b892bc123143d86"),
        ({"min_images": 4}, "02b0b1fc70e043a0", "52efe4a4fd797737", "565a0449d0936f4f"),
        ({"resolution": 33, "crop": 0.5}, "d145a32604216e98", "bc40726f02b11d1a", "2c021b395b018464"),
    ],
    ids=str,
)
def test_the_fingerprints_of_a_folder_stay(root, options, fingerprint, pictures, key):
    data = DataSpec(**{"name": "folder", "root": str(root), "resolution": 32, "min_images": 2, **options})
    faces = load_faces(data)
    found = (faces.fingerprint, faces.pictures_fingerprint, trial_key(TrialSpec(data=data), faces.fingerprint))
    assert found == (fingerprint, pictures, key)
