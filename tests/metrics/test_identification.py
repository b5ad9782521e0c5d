import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.metrics import (
    compute_closed_set_accuracy,
    compute_closed_set_hits,
    find_nearest,
    identification,
    normalize_embeddings,
)


def find_nearest_slowly(probes, gallery, probe_labels=None, gallery_labels=None):
    """Every pair, one by one, in plain Python."""
    indices, distances = [], []
    for i, probe in enumerate(probes):
        best = (float("inf"), -1)
        for j, image in enumerate(gallery):
            if probe_labels is not None and probe_labels[i] == gallery_labels[j]:
                continue
            squared = sum((float(a) - float(b)) ** 2 for a, b in zip(probe, image, strict=True))
            if squared < best[0]:
                best = (squared, j)
        distances.append(best[0] ** 0.5)
        indices.append(best[1])
    return indices, distances


def test_worked_by_hand():
    gallery = [[0.0, 0.0], [3.0, 4.0], [10.0, 0.0]]
    index, distance = find_nearest([[3.0, 3.0], [-3.0, -4.0], [10.0, 0.0]], gallery)
    assert index.tolist() == [1, 0, 2]
    assert distance.tolist() == [1.0, 5.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_agrees_with_every_pair(seed, probe_count, gallery_count, features, other_people):
    rng = np.random.default_rng(seed)
    probes, gallery = rng.normal(size=(probe_count, features)), rng.normal(size=(gallery_count, features))
    labels = (rng.integers(3, size=probe_count), rng.integers(3, size=gallery_count)) if other_people else None
    index, distance = find_nearest(probes, gallery, other_than=labels)
    wanted_index, wanted_distance = find_nearest_slowly(probes, gallery, *(labels or ()))
    assert index.tolist() == wanted_index
    np.testing.assert_allclose(distance, wanted_distance, rtol=1e-12)


def test_blocks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    probes, gallery = rng.normal(size=(23, 8)), rng.normal(size=(11, 8))
    whole = find_nearest(probes, gallery)
    monkeypatch.setattr(identification, "BLOCK_PROBES", 4)
    blocks = find_nearest(probes, gallery)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_allclose(whole[1], blocks[1])


def test_small_distances_keep_their_digits():
    base = normalize_embeddings(np.random.default_rng(1).normal(size=(1, 128)))
    _, distance = find_nearest(base + 1e-9, base)
    np.testing.assert_allclose(distance, 1e-9 * np.sqrt(128), rtol=1e-5)


def test_nothing_but_own_images_gives_no_neighbour():
    index, distance = find_nearest([[1.0, 0.0]], [[1.0, 0.0]], other_than=([7], [7]))
    assert index.tolist() == [-1]
    assert np.isinf(distance).all()


def test_normalised_embeddings_have_unit_length_at_any_scale():
    embeddings = np.array([[3.0, 4.0], [3e-200, 4e-200], [3e200, 4e200]])
    np.testing.assert_allclose(normalize_embeddings(embeddings), [[0.6, 0.8]] * 3)


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_an_embedding_without_direction_is_named(row):
    with pytest.raises(ValueError, match="embedding 1 has no direction"):
        normalize_embeddings([[1.0, 0.0], row])


def test_length_does_not_decide_who_it_is():
    # By raw distance the probe is nearer to person 1; by direction it is person 0.
    probes, gallery = [[1.0, 0.0]], [[100.0, 1.0], [0.0, 1.0]]
    assert compute_closed_set_hits(probes, [0], gallery, [0, 1]).tolist() == [True]


def test_accuracy_is_the_share_of_hits():
    gallery, labels = np.eye(4), [0, 1, 2, 3]
    probes = [[9, 1, 0, 0], [1, 9, 0, 0], [0, 9, 1, 0], [0, 0, 1, 9]]
    assert compute_closed_set_hits(probes, labels, gallery, labels).tolist() == [True, True, False, True]
    assert compute_closed_set_accuracy(probes, labels, gallery, labels) == 0.75


@pytest.mark.parametrize(
    ("probes", "gallery", "message"),
    [
        ([[1.0, 0.0]], np.zeros((0, 2)), "gallery is empty"),
        ([[1.0, 0.0]], [[1.0]], "2 features and the gallery 1"),
        ([1.0, 0.0], [[1.0, 0.0]], r"\[image, feature\]"),
        ([[np.nan, 0.0]], [[1.0, 0.0]], "not finite"),
    ],
)
def test_bad_input_says_what_is_wrong(probes, gallery, message):
    with pytest.raises(ValueError, match=message):
        find_nearest(probes, gallery)


def test_labels_must_be_one_per_image():
    with pytest.raises(ValueError, match="one label per image"):
        compute_closed_set_accuracy([[1.0]], [0, 1], [[1.0]], [0])
    with pytest.raises(ValueError, match="no probe"):
        compute_closed_set_accuracy(np.zeros((0, 1)), [], [[1.0]], [0])
