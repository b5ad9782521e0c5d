"""The networks in results/distilled/models: whole, small, as their cards say, and as good on strangers as recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.data import load_faces
from ffem_jax.data.pairs import read_pairs
from ffem_jax.export.bundle import read_manifest
from ffem_jax.export.embedder import load_exported
from ffem_jax.metrics.verification import compute_pair_distances
from ffem_jax.serve.thresholds import load_calibration
from ffem_jax.specs.trial import DataSpec

MODELS = Path(__file__).resolve().parents[2] / "results" / "distilled" / "models"
FOLDERS = sorted(path.parent for path in MODELS.rglob("export.json"))


def test_there_are_some_of_3_mb_at_most():
    assert FOLDERS
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 3e6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_is_whole_and_its_card_and_thresholds_are_of_it(folder):
    manifest = read_manifest(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert manifest["model_id"] in card
    assert "Teacher: face-api" in card
    assert "licence MIT" in card
    assert not manifest["synthetic"]
    calibration = load_calibration(folder / "calibration.json", manifest["model_id"])
    assert calibration.people == manifest["strangers"]["people"]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if "onnx" in folder.name], ids=lambda path: path.name)
def test_onnx_runtime_alone_gives_different_faces_different_vectors(folder):
    pytest.importorskip("onnxruntime")
    embedder = load_exported(folder)
    side = embedder.resolution
    vectors = embedder.compute(np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert (vectors @ vectors.T)[np.triu_indices(3, 1)].max() < 0.999


@pytest.mark.slow
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if "onnx" in folder.name], ids=lambda path: path.name)
def test_on_the_people_who_did_not_train_it_is_as_good_as_its_export_says(folder, lfw_root):
    pytest.importorskip("onnxruntime")
    manifest, embedder = json.loads((folder / "export.json").read_text()), load_exported(folder)
    spec = DataSpec(name="lfw", root=str(lfw_root), resolution=embedder.resolution, crop=embedder.crop, min_images=1)
    faces = load_faces(spec)
    pairs = read_pairs(lfw_root / "pairs.txt", faces.names)
    fold = pairs.fold == manifest["protocol"]["fold"]
    used, places = np.unique(np.concatenate([pairs.first[fold], pairs.second[fold]]), return_inverse=True)
    vectors = embedder.compute(faces.images[used])
    first, second = np.split(vectors[places], 2)
    distances = compute_pair_distances(first, second)
    best = max(((distances <= limit) == pairs.same[fold]).mean() for limit in distances)
    # The manifest's is at the threshold that suits these pairs best, each face looked at once.
    assert best == pytest.approx(manifest["accuracy"]["exported"], abs=0.005)
