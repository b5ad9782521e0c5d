"""Two people and four test images in the plane, every number worked by hand."""

import dataclasses
import math

import numpy as np
import pytest

from ffem_jax.metrics.intervals import compute_clustered_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.trial import ProtocolSpec
from ffem_jax.training.evaluate import compute_metrics, compute_open_set_metrics, compute_pair_metrics

# Person 0 twice, then person 1 twice. Nearest of the other person, as half the distance:
# sqrt(2) / 2, sqrt(0.8) / 2, sqrt(0.8) / 2, sqrt(2) / 2.
GALLERY = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
GALLERY_LABELS = np.asarray([0, 0, 1, 1])

# Nearest: image 0 at 0; image 1 (cosine 0.96) at sqrt(0.08) / 2 = 0.141; image 2 at 0; image 0, the wrong person,
# at 0.141. Nearest of the other person: 0.707, 0.316, 0.447, 0.141. Lengths do not matter.
PROBES = np.asarray([[3.0, 0.0], [0.6, 0.8], [0.0, 0.5], [0.96, 0.28]])
LABELS = np.asarray([0, 0, 1, 1])
# The classifier is wrong about the second and the fourth.
LOGITS = np.asarray([[2.0, 1.0], [-1.0, 0.0], [0.0, 5.0], [0.1, 0.0]])

PROTOCOL = ProtocolSpec(sigma=0.1, far_target=0.0)


def measure(probes=PROBES, protocol=PROTOCOL, gallery=GALLERY, logits=LOGITS):
    return compute_metrics(logits, probes, LABELS, gallery, GALLERY_LABELS, protocol)


def test_every_field_of_a_case_worked_by_hand():
    found = measure()
    wanted = {
        "accuracy": 2 / 4,
        # Wilson's interval of 2 and of 3 out of 4, with z = 1.96.
        "accuracy_low": 0.150039,
        "accuracy_high": 0.849961,
        "correct": 2,
        "tested": 4,
        "accuracy_gallery": 3 / 4,
        "accuracy_gallery_low": 0.300642,
        "accuracy_gallery_high": 0.954413,
        "correct_gallery": 3,
        "hits": "1010",
        "hits_gallery": "1110",
        "sigma": 0.1,
        "accepted": 2 / 4,  # the two at distance 0
        "false_accept": 0.0,
        "sigma_calibrated": math.sqrt(0.8) / 2,  # just below: there the first stranger of the gallery would pass
        "accepted_calibrated": 3 / 4,
        "false_accept_calibrated": 2 / 4,  # 0.316 and 0.141; 0.447 is not below
    }
    assert set(found) == set(wanted)
    texts = ("hits", "hits_gallery")
    assert {name: found.pop(name) for name in texts} == {name: wanted.pop(name) for name in texts}
    assert found == pytest.approx(wanted, abs=2e-6)
    assert found["sigma_calibrated"] < math.sqrt(0.8) / 2 + 1e-12


def test_every_field_is_one_of_a_records_and_of_a_type_that_json_has():
    found = measure()
    assert set(found) <= {f.name for f in dataclasses.fields(TrialRecord)}
    assert {type(value) for value in found.values()} <= {int, float, str}


def test_the_far_target_is_met_on_the_gallery():
    # Half of the gallery's images may take a stranger: up to the next distance, sqrt(2) / 2.
    half = measure(protocol=ProtocolSpec(sigma=0.1, far_target=0.5))
    assert half["sigma_calibrated"] == pytest.approx(math.sqrt(2) / 2)
    assert half["sigma"] == 0.1
    assert half["accepted"] == measure()["accepted"]


def test_the_calibrated_threshold_never_sees_a_test_image():
    random = np.random.default_rng(0)
    calibrated = measure()["sigma_calibrated"]
    for _ in range(5):
        found = measure(probes=random.normal(size=(4, 2)), logits=random.normal(size=(4, 2)))
        assert found["sigma_calibrated"] == calibrated
    assert measure(gallery=GALLERY[:, ::-1] * [1.0, 0.5])["sigma_calibrated"] != calibrated


@pytest.mark.parametrize("broken", [0.0, np.nan])
@pytest.mark.parametrize("side", ["probes", "gallery"])
def test_an_embedding_without_direction_is_refused(broken, side):
    vectors = {"probes": PROBES, "gallery": GALLERY}[side].copy()
    vectors[2] = broken
    with pytest.raises(ValueError, match="embedding 2 has no direction"):
        measure(**{side: vectors})


# ------------------------------------------------------------------------------------------- pairs

# Directions by angle. Fold 0: the same pairs 10 and 40 degrees apart, the different ones 30 and 120. Fold 1 has its
# best threshold, one error, at 20 degrees (at 60 as well), and with it fold 0's second same pair is rejected.
ANGLES = np.radians([10.0, 40.0, 30.0, 120.0, 20.0, 60.0, 50.0, 90.0])
FIRST = np.tile([2.0, 0.0], (8, 1))
SECOND = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
SAME = np.asarray([True, True, False, False] * 2)
FOLDS = np.asarray([0] * 4 + [1] * 4)


def test_pairs_of_a_fold_worked_by_hand():
    found = compute_pair_metrics(FIRST, SECOND, SAME, FOLDS, ProtocolSpec(name="view2", folds=2))
    verification = found.pop("verification")
    assert found == pytest.approx(
        {"accuracy": 3 / 4, "accuracy_low": 0.300642, "accuracy_high": 0.954413, "correct": 3, "tested": 4}, abs=2e-6
    )
    # Half the chord of an angle is the sine of its half, by two.
    half_chords = np.round(np.sin(ANGLES / 2), 6)
    assert verification.pop("distances_same") == pytest.approx(half_chords[:2])
    assert verification.pop("distances_different") == pytest.approx(half_chords[2:4])
    assert verification == pytest.approx(
        {"threshold": half_chords[4], "eer": 0.5, "auc": 3 / 4, "tar_at_far_1e2": 0.5, "tar_at_far_1e3": 0.5}
    )


def test_the_pairs_of_a_fold_have_no_say_in_their_threshold():
    view2 = ProtocolSpec(name="view2", folds=2)
    before = compute_pair_metrics(FIRST, SECOND, SAME, FOLDS, view2)["verification"]["threshold"]
    moved = np.where(FOLDS[:, None] == 0, SECOND[::-1], SECOND)
    assert compute_pair_metrics(FIRST, moved, SAME, FOLDS, view2)["verification"]["threshold"] == before
    other = compute_pair_metrics(FIRST, SECOND, SAME, FOLDS, dataclasses.replace(view2, fold=1))
    assert other["verification"]["threshold"] != before


def test_strangers_worked_by_hand():
    # Two people of two images, and one of one image that lies nearest to the second of person 4.
    embeddings = np.asarray([[1.0, 0.0], [4.0, 0.4], [0.0, 1.0], [0.6, 0.8], [1.0, 1.0]])
    people = np.asarray([4, 4, 9, 9, 7])
    found = compute_open_set_metrics(embeddings, people)
    # Nearest others, by cosine: 0 -> 1, 1 -> 0, 2 -> 3 (0.8), 3 -> 4 (0.99, the distractor, which is not asked itself).
    assert (found["hits"], found["test_identities"]) == ("1110", [4, 4, 9, 9])
    assert (found["correct"], found["tested"], found["accuracy"]) == (3, 4, 0.75)
    interval = compute_clustered_interval([1, 1, 1, 0], [4, 4, 9, 9])
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(interval)
    report = found["open_set"]
    assert (report["images"], report["people"], report["rank1"]) == (5, 3, 0.75)
    # Genuine pairs at cosine 0.995 and 0.8; one impostor pair, 0.99, lies between them, of weight 1/2 of three.
    assert report["tar_at_far_1e2"] == pytest.approx(0.5)
    assert 0 <= report["auc_low"] <= report["auc"] <= report["auc_high"] <= 1
    assert {name for name in found if name not in {f.name for f in dataclasses.fields(TrialRecord)}} == set()
    with pytest.raises(ValueError, match="both must be at least 2"):
        compute_open_set_metrics(embeddings[:3], np.asarray([1, 2, 3]))
