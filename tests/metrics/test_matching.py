import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.metrics import calibrate_sigma, compute_acceptance, compute_impostor_distances, match


def at_angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def half_chord(degrees):
    """Half the distance of two unit vectors at an angle: sin(angle / 2)."""
    return np.sin(np.radians(degrees) / 2)


def compute_acceptance_slowly(probes, probe_labels, gallery, gallery_labels, sigma):
    right = accepted = false_accept = 0
    for probe, label in zip(probes, probe_labels, strict=True):
        distances = [
            np.linalg.norm(probe / np.linalg.norm(probe) - image / np.linalg.norm(image)) / 2 for image in gallery
        ]
        nearest = int(np.argmin(distances))
        accepted += distances[nearest] <= sigma
        right += distances[nearest] <= sigma and gallery_labels[nearest] == label
        others = [d for d, other in zip(distances, gallery_labels, strict=True) if other != label]
        false_accept += bool(others) and min(others) <= sigma
    return right / len(probes), accepted / len(probes), false_accept / len(probes)


def test_distance_runs_from_0_to_1():
    matches = match(at_angles(0, 60, 90, 180), at_angles(0), [5], 0.5)
    np.testing.assert_allclose(matches.distance, [0, 0.5, np.sqrt(0.5), 1], atol=1e-15)
    assert matches.label.tolist() == [5] * 4


def test_the_threshold_itself_is_accepted():
    matches = match([[-1.0, 0.0]], [[1.0, 0.0]], [0], 1.0)
    assert matches.distance.tolist() == [1.0]
    assert matches.accepted.tolist() == [True]
    assert match([[-1.0, 0.0]], [[1.0, 0.0]], [0], np.nextafter(1.0, 0)).accepted.tolist() == [False]


def test_rates_worked_by_hand():
    # Gallery: person 0 at 0 degrees, person 1 at 40. A probe is accepted within 10 degrees.
    gallery, people = at_angles(0, 40), [0, 1]
    probes = at_angles(5, 25, 36, 33)
    labels = [0, 1, 0, 1]  # accepted right, too far, accepted wrong, accepted right
    result = compute_acceptance(probes, labels, gallery, people, half_chord(10))
    assert result.accepted_correct == 2 / 4
    assert result.accepted == 3 / 4
    # Without their own person, only the third still finds somebody within 10 degrees.
    assert result.false_accept == 1 / 4


def test_false_accepts_are_an_open_set_rate():
    # All are recognised rightly, yet each would pass as the other were it not enrolled.
    gallery = at_angles(0, 4)
    result = compute_acceptance(at_angles(0, 4), [0, 1], gallery, [0, 1], half_chord(5))
    assert (result.accepted_correct, result.accepted, result.false_accept) == (1.0, 1.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_rates_agree_with_every_pair(seed, sigma):
    rng = np.random.default_rng(seed)
    probes, gallery = rng.normal(size=(7, 3)), rng.normal(size=(9, 3))
    probe_labels, gallery_labels = rng.integers(3, size=7), rng.integers(3, size=9)
    got = compute_acceptance(probes, probe_labels, gallery, gallery_labels, sigma)
    wanted = compute_acceptance_slowly(probes, probe_labels, gallery, gallery_labels, sigma)
    assert (got.accepted_correct, got.accepted, got.false_accept) == wanted


def test_calibration_worked_by_hand():
    # Nearest other person: 10, 10, 30, 70 degrees away, from the image at 0, 10, 40, 110.
    embeddings, labels = at_angles(0, 10, 40, 110), [0, 1, 2, 3]
    chords = half_chord(10), half_chord(30), half_chord(70)
    np.testing.assert_allclose(
        compute_impostor_distances(embeddings, labels, embeddings, labels), [chords[0], *chords], rtol=1e-12
    )
    assert calibrate_sigma(embeddings, labels, 0.0) == pytest.approx(chords[0])
    assert calibrate_sigma(embeddings, labels, 0.25) == pytest.approx(chords[0]), "a tie is let in whole or not at all"
    assert calibrate_sigma(embeddings, labels, 0.5) == pytest.approx(chords[1])
    assert calibrate_sigma(embeddings, labels, 0.75) == pytest.approx(chords[2])
    assert calibrate_sigma(embeddings, labels, 1.0) == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.floats(0, 1))
def test_calibration_is_the_largest_threshold_that_keeps_the_target(seed, images, far_target):
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.normal(size=(images, 4)), np.arange(images) % 5
    sigma = calibrate_sigma(embeddings, labels, far_target)
    impostors = compute_impostor_distances(embeddings, labels, embeddings, labels)
    assert np.mean(impostors <= sigma) <= far_target + 1e-9
    if sigma < 1:
        assert np.mean(impostors <= np.nextafter(sigma, 1)) > far_target


def test_calibration_hits_a_rate_that_floating_point_falls_short_of():
    assert 0.29 * 100 < 29
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(100, 16)), np.arange(100)
    impostors = compute_impostor_distances(embeddings, labels, embeddings, labels)
    # Neighbours are often each other's nearest, so a rate may fall just short; a tie is at most a pair here.
    rate = np.mean(impostors <= calibrate_sigma(embeddings, labels, 0.29))
    assert rate == np.max([r for r in (np.mean(impostors <= s) for s in [0, *impostors]) if r <= 0.29])


def test_one_picture_under_two_names_accepts_nothing():
    sigma = calibrate_sigma([[1.0, 0.0], [1.0, 0.0]], [0, 1], 0.0)
    assert not match([[1.0, 0.0]], [[1.0, 0.0]], [0], sigma).accepted.any()


def test_calibration_cannot_be_given_test_images():
    assert list(inspect.signature(calibrate_sigma).parameters) == ["train_embeddings", "train_labels", "far_target"]


def test_bad_input_says_what_is_wrong():
    with pytest.raises(ValueError, match="two people"):
        calibrate_sigma([[1.0, 0.0], [0.0, 1.0]], [0, 0], 0.1)
    with pytest.raises(ValueError, match="far_target"):
        calibrate_sigma([[1.0, 0.0], [0.0, 1.0]], [0, 1], 1.5)
    with pytest.raises(ValueError, match="sigma"):
        match([[1.0, 0.0]], [[1.0, 0.0]], [0], float("nan"))
    with pytest.raises(ValueError, match="no probe"):
        compute_acceptance(np.zeros((0, 2)), [], [[1.0, 0.0]], [0], 0.5)
