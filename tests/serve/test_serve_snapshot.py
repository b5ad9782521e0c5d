"""The nearest vector in memory: what the metrics say over the whole gallery, whatever was added and deleted before."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from ffem_jax.metrics.matching import match
from ffem_jax.serve.snapshot import Snapshot, SnapshotKeeper


def make_snapshot(vectors: np.ndarray, people: np.ndarray) -> Snapshot:
    keeper = SnapshotKeeper(vectors.shape[1])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return keeper.advance(1, np.empty(0, np.int64), unit.astype(np.float32), people)


# Few distinct numbers, so that vectors meet and ties are common.
FEW = st.sampled_from([-3.0, -1.0, -1e-7, 0.5, 1.0, 1.0 + 1e-7, 2.0])


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=FEW),
    arrays.arrays(np.float64, 4, elements=FEW),
    st.floats(0, 1),
)
def test_a_match_is_that_of_the_metrics(gallery: np.ndarray, probe: np.ndarray, sigma: float) -> None:
    people = np.arange(len(gallery)) * 7
    snapshot = make_snapshot(gallery, people)
    found = snapshot.match(probe, sigma)
    expected = match(probe[None], snapshot.vectors, people, sigma)
    assert found is not None
    for name in ("index", "label", "distance", "accepted"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


@pytest.mark.parametrize("length", [2, 128, 512])
def test_close_neighbours_are_told_apart_in_single_precision(length: int) -> None:
    draw = np.random.default_rng(0)
    centre = draw.normal(size=length)
    gallery = centre + 1e-4 * draw.normal(size=(500, length))
    snapshot = make_snapshot(gallery, np.arange(500))
    for probe in centre + 1e-4 * draw.normal(size=(20, length)):
        expected = match(probe[None], snapshot.vectors, np.arange(500), 0.5)
        assert snapshot.match(probe, 0.5).index.tolist() == expected.index.tolist()


def test_few_rows_are_compared_in_double_precision() -> None:
    draw = np.random.default_rng(1)
    snapshot = make_snapshot(draw.normal(size=(5000, 128)), np.arange(5000))
    assert all(len(snapshot.find_candidates(draw.normal(size=128))) == 1 for _ in range(20))


def test_an_empty_gallery_has_no_nearest() -> None:
    assert Snapshot.empty(3).match(np.ones(3), 1.0) is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 9), max_size=100)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 9), max_size=3)),
    ),
    max_size=12,
)


@given(STEPS)
def test_a_snapshot_holds_what_was_added_and_not_deleted_and_old_ones_stay(steps: list) -> None:
    keeper, expected, seen, number = SnapshotKeeper(1), [], [], 0
    for revision, (what, people) in enumerate(steps, 1):
        new, gone = (people, []) if what == "add" else ([], people)
        numbers = range(number, number + len(new))
        number += len(new)
        expected = [pair for pair in expected if pair[1] not in gone] + list(zip(numbers, new, strict=True))
        vectors = np.array(numbers, np.float32).reshape(-1, 1)
        snapshot = keeper.advance(revision, np.array(gone, np.int64), vectors, np.array(new, np.int64))
        seen.append((snapshot, list(expected)))
    for snapshot, rows in seen:
        held = zip(snapshot.vectors[:, 0].tolist(), snapshot.people.tolist(), strict=True)
        assert list(held) == rows
