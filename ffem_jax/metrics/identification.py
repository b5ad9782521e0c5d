"""Rank-1 identification: the person of the nearest gallery image (the paper's Eq. 6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Probes compared at a time: with 13,233 gallery images a block of distances takes 27 MB.
BLOCK_PROBES = 256


def normalize_embeddings(embeddings: npt.ArrayLike) -> np.ndarray:
    """Return embeddings [image, feature] L2-normalised, in float64.

    Raises:
        ValueError: `embeddings` is not a matrix, or an embedding is all zeros or not finite; the message names its row.
    """
    embeddings = _as_matrix(embeddings, "embeddings")
    # Divide by the largest entry first, so that squares neither overflow nor vanish.
    largest = np.max(np.abs(embeddings), axis=1, keepdims=True, initial=0.0)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        raise ValueError(f"embedding {bad[0]} has no direction: it is all zeros or not finite ({bad.size} such rows)")
    scaled = embeddings / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def find_nearest(
    probes: npt.ArrayLike,
    gallery: npt.ArrayLike,
    *,
    other_than: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest gallery row of each probe, by Euclidean distance (Eq. 6).

    Memory is bounded by BLOCK_PROBES x gallery images.

    Args:
        probes: [probe, feature].
        gallery: [image, feature]. Neither is normalised here: normalise both first if norms should not matter.
        other_than: (probe_labels, gallery_labels); each probe is then compared only with images of other labels.

    Returns:
        (index, distance), each [probe]. Among gallery rows at equal distance the first is chosen. A probe without any
        gallery image has index -1 and an infinite distance.

    Raises:
        ValueError: the shapes disagree, the gallery is empty or a number is not finite.
    """
    probes, gallery = _as_matrix(probes, "probes"), _as_matrix(gallery, "gallery")
    if not len(gallery):
        raise ValueError("the gallery is empty; enrol at least one image")
    if probes.shape[1] != gallery.shape[1]:
        raise ValueError(f"probes have {probes.shape[1]} features and the gallery {gallery.shape[1]}; use one model")
    if not (np.isfinite(probes).all() and np.isfinite(gallery).all()):
        raise ValueError("an embedding contains a number that is not finite")
    if other_than is not None:
        probe_labels = as_labels(other_than[0], len(probes), "probe")
        gallery_labels = as_labels(other_than[1], len(gallery), "gallery")

    index = np.full(len(probes), -1)
    distance = np.full(len(probes), np.inf)
    gallery_squares = np.einsum("gf,gf->g", gallery, gallery)
    for start in range(0, len(probes), BLOCK_PROBES):
        rows = slice(start, start + BLOCK_PROBES)
        block = probes[rows]
        # |p - g|^2 without |p|^2, which is the same for all candidates of a probe.
        scores = gallery_squares - 2 * (block @ gallery.T)
        if other_than is not None:
            scores[probe_labels[rows, None] == gallery_labels] = np.inf
        best = np.argmin(scores, axis=1)
        seen = np.isfinite(scores[np.arange(len(block)), best])
        index[rows] = np.where(seen, best, -1)
        # Computed from the difference, because the expanded form loses half the digits of a small distance.
        distance[rows] = np.where(seen, np.linalg.norm(block - gallery[best], axis=1), np.inf)
    return index, distance


def compute_closed_set_hits(
    probes: npt.ArrayLike, probe_labels: npt.ArrayLike, gallery: npt.ArrayLike, gallery_labels: npt.ArrayLike
) -> np.ndarray:
    """Return whether the nearest gallery image of each probe shows the same person: bool [probe].

    Args:
        probes, gallery: embeddings [image, feature], normalised here.
        probe_labels, gallery_labels: [image].

    Raises:
        ValueError: as in `find_nearest`.
    """
    probes, gallery = normalize_embeddings(probes), normalize_embeddings(gallery)
    probe_labels = as_labels(probe_labels, len(probes), "probe")
    gallery_labels = as_labels(gallery_labels, len(gallery), "gallery")
    index, _ = find_nearest(probes, gallery)
    return gallery_labels[index] == probe_labels


def compute_closed_set_accuracy(
    probes: npt.ArrayLike, probe_labels: npt.ArrayLike, gallery: npt.ArrayLike, gallery_labels: npt.ArrayLike
) -> float:
    """Return the share of probes, in 0 to 1, whose nearest gallery image shows the same person.

    Raises:
        ValueError: as in `compute_closed_set_hits`, and if there is no probe.
    """
    hits = compute_closed_set_hits(probes, probe_labels, gallery, gallery_labels)
    if not hits.size:
        raise ValueError("there is no probe; an accuracy needs at least one")
    return float(hits.mean())


def as_labels(labels: npt.ArrayLike, images: int, what: str) -> np.ndarray:
    """Return `labels` as an array [image]. Raises ValueError unless there is one label for each of `images`."""
    array = np.asarray(labels)
    if array.shape != (images,):
        raise ValueError(f"{images} {what} images come with labels of shape {array.shape}; give one label per image")
    return array


def _as_matrix(embeddings: npt.ArrayLike, what: str) -> np.ndarray:
    matrix = np.asarray(embeddings, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{what} have shape {matrix.shape}; they must be [image, feature]")
    return matrix
