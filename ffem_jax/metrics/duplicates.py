"""Find images that occur twice: under two people (so one label is wrong) or twice under one person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Two vectors at most this far apart, in 0 to 1, come from one image: the compiled kernels, plain JAX and ONNX Runtime
# differed by up to 7e-6 for one image (a small network, 240 synthetic faces), and two images by at least 6e-3.
SAME_DISTANCE = 5e-5


@dataclass(frozen=True)
class Duplicates:
    """The images that occur more than once, as groups of ascending indices.

    Args:
        contested: groups that occur under more than one person; at least one label is wrong.
        repeated: groups that occur under one person.
    """

    contested: tuple[tuple[int, ...], ...]
    repeated: tuple[tuple[int, ...], ...]

    def select(self, images: int) -> np.ndarray:
        """Return the images for comparisons between people, bool [image]: none contested, the first of a repeated."""
        kept = np.ones(images, bool)
        kept[[index for group in self.contested for index in group]] = False
        kept[[index for group in self.repeated for index in group[1:]]] = False
        return kept


def find_duplicates(labels: npt.ArrayLike, content: Sequence[Hashable]) -> Duplicates:
    """Group the images with equal `content` [image], given their people `labels` [image], by first occurrence."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(content):
        groups[key].append(index)
    people = np.asarray(labels)
    several = [tuple(group) for group in groups.values() if len(group) > 1]
    contested = [len(np.unique(people[list(group)])) > 1 for group in several]
    return Duplicates(
        tuple(group for group, is_contested in zip(several, contested, strict=True) if is_contested),
        tuple(group for group, is_contested in zip(several, contested, strict=True) if not is_contested),
    )


def group_same_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return for each row of L2-normalised `vectors` [row, feature] the first row of the same image: int [row]."""
    first = np.arange(len(vectors))
    if len(vectors) < 2:
        return first
    along, margin = _project(vectors)
    order = np.argsort(along, kind="stable")
    ends = np.searchsorted(along[order], along[order] + margin, side="right")
    grouped = np.zeros(len(vectors), bool)
    for place in np.flatnonzero(ends > np.arange(len(order)) + 1):
        if grouped[order[place]]:
            continue
        near = order[place : ends[place]]
        same = near[_are_same(vectors[near], vectors[order[place]]) & ~grouped[near]]
        grouped[same], first[same] = True, same.min()
    return first


def find_same_rows(vectors: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Return whether each of `vectors` [row, feature] is of the same image as any of `probes` [probe, feature]."""
    found = np.zeros(len(vectors), bool)
    if not (len(probes) and len(vectors)):
        return found
    (along, margin), (places, _) = _project(vectors), _project(probes)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], along - margin, side="left")
    ends = np.searchsorted(places[order], along + margin, side="right")
    for row in np.flatnonzero(ends > starts):
        found[row] = _are_same(probes[order[starts[row] : ends[row]]], vectors[row]).any()
    return found


def _project(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the position of each vector along a random line, and the largest distance there between equal vectors.

    Vectors that are close are also close along any line, so only neighbours on the line need comparing.
    """
    length = vectors.shape[1]
    drawn = np.random.default_rng(0).normal(size=length)
    line = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    # Distances are half those of unit vectors; the error of a float32 dot product is at most (length + 1) roundings.
    margin = 2 * SAME_DISTANCE + 2 * (length + 4) * float(np.finfo(np.float32).epsneg)
    return (vectors.astype(np.float32, copy=False) @ line).astype(np.float64), margin


def _are_same(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(vectors.astype(np.float64) - vector.astype(np.float64), axis=1) / 2
    return distances <= SAME_DISTANCE
