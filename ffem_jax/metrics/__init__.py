"""Metrics of embeddings and predictions, with intervals. NumPy only."""

from ffem_jax.metrics.identification import (
    compute_closed_set_accuracy,
    compute_closed_set_hits,
    find_nearest,
    normalize_embeddings,
)
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.metrics.matching import (
    Acceptance,
    Matches,
    calibrate_sigma,
    compute_acceptance,
    compute_impostor_distances,
    match,
)
from ffem_jax.metrics.verification import (
    Roc,
    choose_threshold,
    compute_area,
    compute_equal_error_rate,
    compute_fold_hits,
    compute_mean_and_error,
    compute_pair_distances,
    compute_roc,
    compute_tar_at_far,
    compute_view2_accuracy,
)

__all__ = [
    "Acceptance",
    "Matches",
    "Roc",
    "calibrate_sigma",
    "choose_threshold",
    "compute_acceptance",
    "compute_area",
    "compute_closed_set_accuracy",
    "compute_closed_set_hits",
    "compute_equal_error_rate",
    "compute_fold_hits",
    "compute_impostor_distances",
    "compute_mean_and_error",
    "compute_pair_distances",
    "compute_roc",
    "compute_tar_at_far",
    "compute_view2_accuracy",
    "compute_wilson_interval",
    "find_nearest",
    "match",
    "normalize_embeddings",
]
