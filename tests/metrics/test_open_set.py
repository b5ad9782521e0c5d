"""Identification and verification among people nobody trained on, held against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from ffem_jax.metrics.open_set import FALSE_ACCEPT_RATES, find_rank1_hits, measure_open_set


def draw_people(sizes: list[int], spread: float, seed: int = 0, features: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [image, feature] around one centre per person, and the people [image]."""
    random = np.random.default_rng(seed)
    people = np.repeat(np.arange(len(sizes)), sizes)
    centres = random.normal(size=(len(sizes), features))
    return centres[people] + spread * random.normal(size=(len(people), features)), people


def list_pairs(vectors: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity, genuine and weight of every pair, by the definition: a loop."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    counts = np.bincount(people)
    rows = []
    for i in range(len(people)):
        for j in range(i + 1, len(people)):
            a, b = people[i], people[j]
            weight = 2 / (counts[a] * (counts[a] - 1)) if a == b else 1 / (counts[a] * counts[b])
            rows.append((np.float32(units[i] @ units[j]), a == b, weight))
    similarity, genuine, weight = map(np.array, zip(*rows, strict=True))
    return similarity, genuine, weight


def test_each_image_is_asked_for_its_nearest_other() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.6, 0.5], [-1, 0]])
    # 3 is nearest to 1, of another person; 4 has no other image and is only somebody to be taken for.
    probes, hits = find_rank1_hits(vectors, [7, 7, 5, 5, 9])
    assert probes.tolist() == [0, 1, 2, 3]
    assert hits.tolist() == [True, True, True, False]


@given(st.lists(st.integers(1, 5), min_size=3, max_size=7), st.integers(0, 99))
def test_identification_is_that_of_a_loop(sizes: list[int], seed: int) -> None:
    vectors, people = draw_people(sizes, 0.8, seed)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = {}
    for i, person in enumerate(people):
        others = [j for j in range(len(people)) if j != i]
        if any(people[j] == person for j in others):
            wanted[i] = people[max(others, key=lambda j: units[i] @ units[j])] == person
    probes, hits = find_rank1_hits(vectors, people)
    assert dict(zip(probes.tolist(), hits.tolist(), strict=True)) == wanted


@pytest.mark.parametrize(("sizes", "spread"), [([2] * 12, 0.7), ([1, 1, 2, 3, 9, 30], 0.9), ([4] * 9 + [1] * 9, 1.4)])
def test_verification_is_scikit_learn_s_with_the_same_weights(sizes: list[int], spread: float) -> None:
    vectors, people = draw_people(sizes, spread)
    similarity, genuine, weight = list_pairs(vectors, people)
    report = measure_open_set(vectors, people, replicates=3)
    assert report.auc.value == pytest.approx(roc_auc_score(genuine, similarity, sample_weight=weight), abs=1e-6)
    far, tar, _ = roc_curve(genuine, similarity, sample_weight=weight, drop_intermediate=False)
    for rate in FALSE_ACCEPT_RATES:
        assert report.tar[rate].value == pytest.approx(tar[far <= rate + 1e-9].max(), abs=1e-6)
    assert report.eer.value == pytest.approx(np.maximum(far, 1 - tar).min(), abs=1e-6)


def test_one_person_with_many_images_does_not_decide() -> None:
    # Ten people told apart perfectly, and one with 60 images that point anywhere.
    vectors, people = draw_people([3] * 10, 0.01)
    random = np.random.default_rng(1)
    crowd = np.vstack([vectors, random.normal(size=(60, 8))])
    report = measure_open_set(crowd, np.append(people, np.full(60, 10)), replicates=3)
    assert report.tar[1e-2].value > 0.85  # of 11 people, 10; of 1,800 genuine pairs, 30


def test_perfect_and_blind_embeddings() -> None:
    vectors, people = draw_people([4] * 20, 1e-3)
    report = measure_open_set(vectors, people)
    assert (report.rank1.value, report.auc.value, report.eer.value, report.tar[1e-4].value) == (1, 1, 0, 1)
    assert (report.rank1.low, report.rank1.high) == (1, 1)
    blind = measure_open_set(np.random.default_rng(0).normal(size=vectors.shape), people)
    assert abs(blind.auc.value - 0.5) < 0.06
    assert blind.rank1.value < 0.2


@pytest.mark.parametrize("sizes", [[3] * 60 + [1] * 40, [1] * 30 + [2] + [1] * 30, [50, 50, 2]])
def test_of_a_large_fold_the_pairs_of_some_people_are_looked_at_and_all_are_identified(sizes: list[int]) -> None:
    vectors, people = draw_people(sizes, 0.9)
    whole, part = measure_open_set(vectors, people), measure_open_set(vectors, people, most_images=20)
    assert (whole.compared, part.compared < len(people)) == (len(people), True)
    assert part.hits.tolist() == whole.hits.tolist()
    assert part.rank1.value == whole.rank1.value
    # Whole people, some of whom have a pair of their own: what these people alone give.
    own = next(
        chosen for seed in range(1000)
        if (chosen := set(np.random.default_rng([0, 1]).permutation(len(sizes))[: seed + 2].tolist()))
        and sum(sizes[person] for person in chosen) == part.compared
    )  # fmt: skip
    kept = np.isin(people, list(own))
    alone = measure_open_set(vectors[kept], people[kept])
    assert (part.auc.value, part.eer.value) == (alone.auc.value, alone.eer.value)
    assert {rate: one.value for rate, one in part.tar.items()} == {rate: one.value for rate, one in alone.tar.items()}
    for estimate in (part.auc, part.eer, *part.tar.values()):
        assert estimate.low <= estimate.value <= estimate.high


def test_some_people_stand_for_all() -> None:
    vectors, people = draw_people([3] * 300 + [1] * 300, 0.9)
    whole, part = measure_open_set(vectors, people), measure_open_set(vectors, people, most_images=500)
    assert part.compared in range(450, 501)
    assert part.auc.low < whole.auc.value < part.auc.high
    assert part.eer.low < whole.eer.value < part.eer.high


def test_intervals_cover_what_other_people_give() -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return draw_people([2] * 40 + [1] * 20, 0.9, seed)

    truth = [measure_open_set(*draw(1000 + seed), replicates=1) for seed in range(60)]
    reports = [measure_open_set(*draw(seed), replicates=100) for seed in range(60)]
    for read in (lambda r: r.rank1, lambda r: r.auc, lambda r: r.eer, lambda r: r.tar[1e-2]):
        mean = float(np.mean([read(report).value for report in truth]))
        covered = np.mean([read(report).low <= mean <= read(report).high for report in reports])
        assert covered > 0.85, covered


def test_the_order_of_images_and_their_lengths_change_nothing() -> None:
    vectors, people = draw_people([1, 2, 3, 4, 5], 0.8)
    order = np.random.default_rng(0).permutation(len(people))
    first = measure_open_set(vectors, people, replicates=20)
    second = measure_open_set(3.5 * vectors[order], people[order], replicates=20)
    assert (first.tar, first.eer, first.auc, first.rank1) == (second.tar, second.eer, second.auc, second.rank1)


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1]])
def test_too_few_people_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        measure_open_set(*draw_people(sizes, 1.0))
