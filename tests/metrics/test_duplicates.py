"""One picture that is there twice: found by its content or its vector, and by nothing that is only close."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ffem_jax.metrics.duplicates import SAME_DISTANCE, find_duplicates, find_same_rows, group_same_vectors


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12))
def test_every_picture_is_contested_repeated_or_once(pictures: list[tuple[int, int]]) -> None:
    labels, content = [label for label, _ in pictures], [key for _, key in pictures]
    found = find_duplicates(np.array(labels, int), content)
    contested = {index for group in found.contested for index in group}
    for index, (label, key) in enumerate(pictures):
        owners = {other for other, other_key in pictures if other_key == key}
        assert (index in contested) == (len(owners) > 1)
        assert (index in {one for group in found.repeated for one in group}) == (
            owners == {label} and content.count(key) > 1
        )
    kept = found.select(len(pictures))
    alone = {key for key in content if len({label for label, other in pictures if other == key}) == 1}
    assert sorted(content[index] for index in np.flatnonzero(kept)) == sorted(alone)


def draw_vectors(rows: int, length: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 128, 512])
def test_copies_are_found_whatever_the_rounding_and_neighbours_are_not(length: int) -> None:
    vectors = draw_vectors(300, length)
    if length > 2:  # in so few directions drawn ones lie as close
        assert group_same_vectors(vectors).tolist() == list(range(300))
    draw = np.random.default_rng(1)
    noise = draw.normal(size=vectors.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    nearly = (vectors + 1e-7 * noise).astype(np.float32)
    neighbours = (vectors + 20 * SAME_DISTANCE * noise).astype(np.float32)
    groups = group_same_vectors(np.concatenate([vectors, nearly]))
    assert (groups[300:] == groups[:300]).all()
    assert find_same_rows(vectors, nearly[::2])[::2].all()
    if length > 2:
        assert group_same_vectors(np.concatenate([vectors, neighbours])).tolist() == list(range(600))
        assert find_same_rows(vectors, nearly[::2]).tolist() == [True, False] * 150
        assert not find_same_rows(vectors, neighbours).any()


def test_a_network_that_gives_everybody_one_vector_takes_no_time() -> None:
    vectors = np.repeat(draw_vectors(1, 16), 200_000, axis=0)
    assert not group_same_vectors(vectors).any()


def test_nothing_is_like_nothing() -> None:
    nothing, some = np.empty((0, 4), np.float32), draw_vectors(3, 4)
    assert group_same_vectors(nothing).tolist() == []
    assert find_same_rows(nothing, some).tolist() == []
    assert find_same_rows(some, nothing).tolist() == [False] * 3
