"""What a trained network is worth: embeddings and logits of the test images -> the numbers of a record. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.metrics.matching import calibrate_sigma, compute_acceptance
from ffem_jax.spec import ProtocolSpec


def compute_metrics(
    logits: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    protocol: ProtocolSpec,
) -> dict[str, Any]:
    """The measured fields of a TrialRecord.

    logits [test, people] and embeddings [test, feature] of the test images, labels [test]; gallery [train, feature]
    and gallery_labels [train] are the training images: the people as the server has them enrolled. Both thresholds
    are settled before a test image is looked at: sigma is the protocol's, sigma_calibrated comes from the gallery.

    Raises ValueError where an embedding is not finite or has no direction.
    """
    tested = len(labels)
    hits = logits.argmax(axis=1) == labels
    hits_gallery = compute_closed_set_hits(embeddings, labels, gallery, gallery_labels)
    correct, correct_gallery = int(hits.sum()), int(hits_gallery.sum())
    low, high = compute_wilson_interval(correct, tested)
    gallery_low, gallery_high = compute_wilson_interval(correct_gallery, tested)
    calibrated = calibrate_sigma(gallery, gallery_labels, protocol.far_target)
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
