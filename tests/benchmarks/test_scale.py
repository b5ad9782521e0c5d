"""The sets of `benchmarks.scale` are what they say: every format holds the same images of the same people."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale import PER_PERSON, WRITERS, make_images
from ffem_jax.data import load_faces
from ffem_jax.specs.data import DataSpec


def test_no_two_images_are_one_file():
    images, labels = zip(*make_images(60, 32), strict=True)
    assert len(set(images)) == 60
    assert np.bincount(labels).tolist() == [PER_PERSON] * 3


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_read_as_what_was_written(name, tmp_path):
    pytest.importorskip("pyarrow", reason="pip install -c constraints.txt -e '.[parquet]'")
    root = tmp_path / name
    root.mkdir()
    WRITERS[name](root, make_images(60, 32))
    faces = load_faces(DataSpec(name=name, root=str(root), resolution=32, cache_dir=str(tmp_path / "cache")))
    assert sorted(np.bincount(faces.labels)) == [PER_PERSON] * 3
    assert faces.images.shape == (60, 32, 32, 3)
