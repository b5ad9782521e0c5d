"""The measured fields of a record, from embeddings and logits of the test images. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffem_jax.data.bins import BinSet
from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.metrics.intervals import compute_clustered_interval, compute_wilson_interval
from ffem_jax.metrics.matching import calibrate_sigma, compute_acceptance
from ffem_jax.metrics.open_set import measure_open_set
from ffem_jax.metrics.ten_folds import measure_folds
from ffem_jax.metrics.verification import (
    compute_area,
    compute_equal_error_rate,
    compute_fold_hits,
    compute_pair_distances,
    compute_roc,
    compute_tar_at_far,
)
from ffem_jax.specs.trial import ProtocolSpec


def compute_metrics(
    logits: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    protocol: ProtocolSpec,
    comparable: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the measured fields of a TrialRecord under holdout and kfold.

    Both thresholds are fixed before any test image is seen: sigma is set by the protocol, and sigma_calibrated comes
    from the gallery.

    Args:
        logits: of the test images, [test, num_classes].
        embeddings: of the test images, [test, feature].
        labels: of the test images, [test].
        gallery: embeddings of the training images, [train, feature], as a server would enrol them.
        gallery_labels: [train].
        comparable: bool [train], the gallery images used for calibration; an image filed under two people is left out,
            since it would form false pairs of different people. None uses all.

    Raises:
        ValueError: an embedding is not finite or has norm 0.
    """
    tested = len(labels)
    hits = logits.argmax(axis=1) == labels
    hits_gallery = compute_closed_set_hits(embeddings, labels, gallery, gallery_labels)
    correct, correct_gallery = int(hits.sum()), int(hits_gallery.sum())
    gallery_low, gallery_high = compute_wilson_interval(correct_gallery, tested)
    whole = comparable is None or len(np.unique(gallery_labels[comparable])) < 2
    kept = np.ones(len(gallery), bool) if whole else comparable
    calibrated = calibrate_sigma(gallery[kept], gallery_labels[kept], protocol.far_target)
    fixed = compute_acceptance(embeddings, labels, gallery, gallery_labels, protocol.sigma)
    chosen = compute_acceptance(embeddings, labels, gallery, gallery_labels, calibrated)
    return {
        **_describe_accuracy(correct, tested),
        "accuracy_gallery": correct_gallery / tested,
        "accuracy_gallery_low": gallery_low,
        "accuracy_gallery_high": gallery_high,
        "correct_gallery": correct_gallery,
        "hits": _write_hits(hits),
        "hits_gallery": _write_hits(hits_gallery),
        "sigma": protocol.sigma,
        "accepted": fixed.accepted_correct,
        "false_accept": fixed.false_accept,
        "sigma_calibrated": calibrated,
        "accepted_calibrated": chosen.accepted_correct,
        "false_accept_calibrated": chosen.false_accept,
    }


def compute_open_set_metrics(embeddings: np.ndarray, people: np.ndarray) -> dict[str, Any]:
    """Return the measured fields of a TrialRecord under open_set.

    Accuracy is rank-1 identification, leave-one-out among all test images. All intervals describe the variation over
    new people.

    Args:
        embeddings: of the test images, [test, feature].
        people: int [test], the identity on each image; none of them was in training.

    Raises:
        ValueError: as in `measure_open_set`.
    """
    report = measure_open_set(embeddings, people)
    probes, correct = people[report.probes], int(report.hits.sum())
    low, high = compute_clustered_interval(report.hits, probes)
    rates = {f"tar_at_far_1e{round(-math.log10(far))}": estimate for far, estimate in report.tar.items()}
    rates |= {"eer": report.eer, "auc": report.auc}
    open_set = {"rank1": correct / len(probes), "rank1_low": low, "rank1_high": high}
    for name, estimate in rates.items():
        open_set |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    if report.compared < len(people):
        open_set["compared"] = report.compared
    return {
        "accuracy": correct / len(probes),
        "accuracy_low": low,
        "accuracy_high": high,
        "correct": correct,
        "tested": len(probes),
        "hits": _write_hits(report.hits),
        "test_identities": probes.tolist(),
        "open_set": open_set | {"images": len(people), "people": len(np.unique(people))},
    }


def compute_bins_metrics(embeddings: np.ndarray, sets: Sequence[BinSet]) -> dict[str, Any]:
    """Return the measured fields of a TrialRecord under bins.

    Args:
        embeddings: the sum for each image and its mirror image, [image, feature], all sets one after another.
        sets: the sets, whose images come in consecutive pairs.

    Raises:
        ValueError: as in `measure_folds`, with the name of the set.
    """
    bins: dict[str, dict[str, Any]] = {}
    start = 0
    for one in sets:
        own = embeddings[start : start + 2 * len(one.same)]
        start += len(own)
        try:
            report = measure_folds(own[0::2], own[1::2], one.same)
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from None
        bins[one.name] = {
            "accuracy": float(report.accuracy.mean()),
            "accuracy_std": float(report.accuracy.std()),
            "tar_at_far_1e3": float(report.tar.mean()),
            "tar_at_far_1e3_std": float(report.tar.std()),
            "far_at_far_1e3": float(report.far.mean()),
            "threshold": float(report.threshold.mean()),
            "pairs": len(one.same),
            "correct": int(report.hits.sum()),
            "fingerprint": one.fingerprint,
        }
    correct, tested = (sum(one[name] for one in bins.values()) for name in ("correct", "pairs"))
    return {**_describe_accuracy(correct, tested), "bins": bins}


def _describe_accuracy(correct: int, tested: int) -> dict[str, Any]:
    """Return the fields of an accuracy, with Wilson's interval."""
    low, high = compute_wilson_interval(correct, tested)
    rates = {"accuracy": correct / tested, "accuracy_low": low, "accuracy_high": high}
    return {**rates, "correct": correct, "tested": tested}


def _write_hits(hits: np.ndarray) -> str:
    return "".join("1" if hit else "0" for hit in hits)


# Decimals of a pair's distance in a record. All rates are measured on the rounded distances, so that they can be
# recomputed from the record.
DECIMALS = 6


def compute_pair_metrics(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, folds: np.ndarray, protocol: ProtocolSpec
) -> dict[str, Any]:
    """Return the measured fields of a TrialRecord under view2.

    Accuracy is measured on the pairs of `protocol.fold`, at the threshold that is best for the other folds. The other
    numbers in `verification` need no threshold.

    Args:
        first, second: embeddings of the two sides of all folds' pairs, [pair, feature].
        same: whether a pair shows one person, bool [pair].
        folds: int [pair].

    Raises:
        ValueError: an embedding is not finite or has norm 0.

    References:
        Huang et al., Labeled Faces in the Wild, 2007, section III.
    """
    distances = np.round(compute_pair_distances(first, second), DECIMALS)
    hits, threshold = compute_fold_hits(distances, same, folds, protocol.fold)
    tested = folds == protocol.fold
    roc = compute_roc(distances[tested], same[tested])
    return {
        **_describe_accuracy(int(hits.sum()), len(hits)),
        "verification": {
            "threshold": threshold,
            "eer": compute_equal_error_rate(roc),
            "auc": compute_area(roc),
            "tar_at_far_1e2": compute_tar_at_far(roc, 1e-2),
            "tar_at_far_1e3": compute_tar_at_far(roc, 1e-3),
            "distances_same": distances[tested & same].tolist(),
            "distances_different": distances[tested & ~same].tolist(),
        },
    }
