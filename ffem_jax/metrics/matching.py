"""Acceptance by distance (the paper's Eq. 7), and the threshold for a given false-accept rate.

A distance is half the Euclidean distance of L2-normalised embeddings: 0 for equal directions, 1 for opposite ones. The
paper calls its sigma = 0.5 "(normalized)" without saying how; this normalisation is our interpretation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffem_jax.metrics.identification import as_labels, find_nearest, normalize_embeddings


@dataclass(frozen=True)
class Matches:
    """The nearest gallery image of each probe, and whether it is accepted. Arrays are [probe].

    Args:
        index: index of the nearest gallery image.
        label: its person, accepted or not.
        distance: in 0 to 1.
        accepted: distance <= sigma.
    """

    index: np.ndarray
    label: np.ndarray
    distance: np.ndarray
    accepted: np.ndarray


@dataclass(frozen=True)
class Acceptance:
    """Acceptance rates of Eq. 7 over the probes, in 0 to 1.

    Args:
        accepted_correct: accepted as the correct person.
        accepted: accepted as any person, correct or not.
        false_accept: accepted as another person while the probe's own person is not enrolled (an open set). A probe
            that then has no gallery image left counts as not accepted.
    """

    accepted_correct: float
    accepted: float
    false_accept: float


def match(probes: npt.ArrayLike, gallery: npt.ArrayLike, gallery_labels: npt.ArrayLike, sigma: float) -> Matches:
    """Compare each probe with its nearest gallery image, and accept at distance <= sigma (Eq. 6 and 7).

    Args:
        probes, gallery: embeddings [image, feature], normalised here.
        gallery_labels: [image].

    Raises:
        ValueError: as in `find_nearest`, or sigma is NaN.
    """
    _check_sigma(sigma)
    probes, gallery = normalize_embeddings(probes), normalize_embeddings(gallery)
    labels = as_labels(gallery_labels, len(gallery), "gallery")
    index, distance = find_nearest(probes, gallery)
    distance = distance / 2
    return Matches(index=index, label=labels[index], distance=distance, accepted=distance <= sigma)


def compute_impostor_distances(
    probes: npt.ArrayLike, probe_labels: npt.ArrayLike, gallery: npt.ArrayLike, gallery_labels: npt.ArrayLike
) -> np.ndarray:
    """Return the distance [probe], in 0 to 1, to the nearest gallery image of another person; infinite if none.

    Raises:
        ValueError: as in `find_nearest`.
    """
    labels = (probe_labels, gallery_labels)
    _, distance = find_nearest(normalize_embeddings(probes), normalize_embeddings(gallery), other_than=labels)
    return distance / 2


def compute_acceptance(
    probes: npt.ArrayLike,
    probe_labels: npt.ArrayLike,
    gallery: npt.ArrayLike,
    gallery_labels: npt.ArrayLike,
    sigma: float,
) -> Acceptance:
    """Return the acceptance rates of Eq. 7 at `sigma`: with all people enrolled, and without the probe's own person.

    Args:
        probes, gallery: embeddings [image, feature], normalised here.
        probe_labels, gallery_labels: [image].

    Raises:
        ValueError: as in `match`, or there is no probe.
    """
    matches = match(probes, gallery, gallery_labels, sigma)
    if not matches.accepted.size:
        raise ValueError("there is no probe; a rate needs at least one")
    right = matches.label == as_labels(probe_labels, matches.label.size, "probe")
    impostors = compute_impostor_distances(probes, probe_labels, gallery, gallery_labels)
    return Acceptance(
        accepted_correct=float(np.mean(matches.accepted & right)),
        accepted=float(np.mean(matches.accepted)),
        false_accept=float(np.mean(impostors <= sigma)),
    )


def calibrate_sigma(train_embeddings: npt.ArrayLike, train_labels: npt.ArrayLike, far_target: float) -> float:
    """Return the largest sigma in 0 to 1 at which at most `far_target` of the training images accept another person.

    The impostor of an image is the nearest training image of another person. Test images are not used, so they cannot
    leak. The network was trained to separate exactly these people, so new people are accepted more often than
    `far_target`; `compute_acceptance` on test images measures how often. If even distance 0 accepts too many impostors
    (one image under two names), the result is below 0 and accepts nothing.

    Args:
        train_embeddings: [image, feature], normalised here.
        train_labels: [image].
        far_target: in 0 to 1.

    Raises:
        ValueError: there are fewer than two people, or far_target is outside 0 to 1.
    """
    if not 0 <= far_target <= 1:
        raise ValueError(f"far_target={far_target} must be between 0 and 1")
    impostors = np.sort(compute_impostor_distances(train_embeddings, train_labels, train_embeddings, train_labels))
    if not np.isfinite(impostors).all() or not impostors.size:
        raise ValueError("calibrating sigma needs training images of at least two people")
    # 0.29 * 100 is 28.999999999999996 and must count as 29.
    allowed = math.floor(far_target * impostors.size + 1e-9)
    if allowed == impostors.size:
        return 1.0
    return float(min(1.0, np.nextafter(impostors[allowed], -np.inf)))


def _check_sigma(sigma: float) -> None:
    if math.isnan(sigma):
        raise ValueError("sigma is not a number; give a threshold in 0 to 1")
