"""What a trained network is worth: embeddings and logits of the test images -> the numbers of a record. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.metrics.matching import calibrate_sigma, compute_acceptance
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
    """The measured fields of a TrialRecord.

    logits [test, people] and embeddings [test, feature] of the test images, labels [test]; gallery [train, feature]
    and gallery_labels [train] are the training images: the people as the server has them enrolled. Both thresholds
    are settled before a test image is looked at: sigma is the protocol's, sigma_calibrated comes from the gallery, or
    from those of it that are `comparable`, bool [train]: a picture under two people is no pair of different people.

    Raises ValueError where an embedding is not finite or has no direction.
    """
    tested = len(labels)
    hits = logits.argmax(axis=1) == labels
    hits_gallery = compute_closed_set_hits(embeddings, labels, gallery, gallery_labels)
    correct, correct_gallery = int(hits.sum()), int(hits_gallery.sum())
    low, high = compute_wilson_interval(correct, tested)
    gallery_low, gallery_high = compute_wilson_interval(correct_gallery, tested)
    whole = comparable is None or len(np.unique(gallery_labels[comparable])) < 2
    kept = np.ones(len(gallery), bool) if whole else comparable
    calibrated = calibrate_sigma(gallery[kept], gallery_labels[kept], protocol.far_target)
    fixed = compute_acceptance(embeddings, labels, gallery, gallery_labels, protocol.sigma)
    chosen = compute_acceptance(embeddings, labels, gallery, gallery_labels, calibrated)
    return {
        "accuracy": correct / tested,
        "accuracy_low": low,
        "accuracy_high": high,
        "correct": correct,
        "tested": tested,
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


def _write_hits(hits: np.ndarray) -> str:
    return "".join("1" if hit else "0" for hit in hits)


# Of a pair's distance in a record; what is measured is measured on distances so rounded, and can be measured again.
DECIMALS = 6


def compute_pair_metrics(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, folds: np.ndarray, protocol: ProtocolSpec
) -> dict[str, Any]:
    """The measured fields of a TrialRecord under view2.

    first, second [pair, feature]: embeddings of the two sides of all folds' pairs; same [pair]; folds int [pair].
    `protocol.fold` is tested: accuracy is of its pairs, at the threshold that suits the other folds best. What
    `verification` has besides needs no threshold.

    Raises ValueError where an embedding is not finite or has no direction.
    """
    distances = np.round(compute_pair_distances(first, second), DECIMALS)
    hits, threshold = compute_fold_hits(distances, same, folds, protocol.fold)
    tested = folds == protocol.fold
    roc = compute_roc(distances[tested], same[tested])
    correct = int(hits.sum())
    low, high = compute_wilson_interval(correct, len(hits))
    return {
        "accuracy": correct / len(hits),
        "accuracy_low": low,
        "accuracy_high": high,
        "correct": correct,
        "tested": len(hits),
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
