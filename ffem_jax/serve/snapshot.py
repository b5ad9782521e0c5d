"""A model's vectors in memory, as one matrix, and the nearest of them: exact, with one pass over the matrix.

One float32 product over the whole matrix leaves the rows whose rounding could hide the nearest, most often one. The
metrics' `match` decides among them in float64, so the answer is that of Eq. 6 over the whole gallery. A `Snapshot`
never changes, and a reader needs no lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffem_jax.metrics.matching import Matches, match

# Room for new rows, as a share of those there are.
SPARE = 0.25


@dataclass(frozen=True)
class Snapshot:
    """The gallery after one revision. It never changes: who holds it may read it without a lock.

    vectors: float32 [row, length], of unit length; people: int64 [row], whose each is.
    """

    revision: int
    vectors: np.ndarray
    people: np.ndarray

    @classmethod
    def empty(cls, length: int) -> Snapshot:
        """Nobody, at revision 0, with vectors of `length` numbers."""
        return cls(0, np.empty((0, length), np.float32), np.empty(0, np.int64))

    def match(self, vector: np.ndarray, sigma: float) -> Matches | None:
        """Eq. 6 and 7 for one vector [length] as `metrics.match` has them; None where nobody is enrolled.

        Raises ValueError for a vector without direction.
        """
        if not len(self.vectors):
            return None
        rows = self.find_candidates(vector)
        found = match(vector[None], self.vectors[rows], self.people[rows], sigma)
        return Matches(rows[found.index], found.label, found.distance, found.accepted)

    def find_candidates(self, vector: np.ndarray) -> np.ndarray:
        """Ascending rows among which the nearest is for certain: those whose rounded score could be the best."""
        length = self.vectors.shape[1]
        probe = np.asarray(vector, np.float64)
        probe = probe / np.abs(probe).max()
        scores = self.vectors @ (probe / np.linalg.norm(probe)).astype(np.float32)
        # A float32 dot product of unit vectors is off by at most (length + 1) roundings, and so are their lengths.
        margin = 4 * (length + 4) * 2.0**-24
        return np.flatnonzero(scores >= scores.max() - margin)


class SnapshotKeeper:
    """The newest snapshot, and the storage that it and older ones are views of. One writer at a time."""

    def __init__(self, length: int):
        self.snapshot = Snapshot.empty(length)
        self._vectors, self._people = self.snapshot.vectors, self.snapshot.people

    def advance(self, revision: int, deleted: np.ndarray, vectors: np.ndarray, people: np.ndarray) -> Snapshot:
        """The snapshot after `revision`: without the people `deleted`, and with new `vectors` of `people`."""
        old = self.snapshot
        kept = np.isin(old.people, deleted, invert=True) if deleted.size else None
        if kept is not None and not kept.all():
            # Readers hold views of the storage: those who stay move to a new one.
            self._replace_storage(old.vectors[kept], old.people[kept], len(vectors))
            count = int(kept.sum())
        else:
            count = len(old.people)
            if count + len(vectors) > len(self._people):
                self._replace_storage(old.vectors, old.people, len(vectors))
        end = count + len(vectors)
        # Rows past the end of every snapshot so far: no reader sees them change.
        self._vectors[count:end], self._people[count:end] = vectors, people
        self.snapshot = Snapshot(revision, self._vectors[:end], self._people[:end])
        return self.snapshot

    def _replace_storage(self, vectors: np.ndarray, people: np.ndarray, more: int) -> None:
        capacity = int((len(people) + more) * (1 + SPARE)) + 64
        self._vectors = np.zeros((capacity, vectors.shape[1]), np.float32)
        self._people = np.zeros(capacity, np.int64)
        self._vectors[: len(people)], self._people[: len(people)] = vectors, people
