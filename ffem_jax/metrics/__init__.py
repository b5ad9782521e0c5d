"""What embeddings and predictions are worth, as numbers with intervals. NumPy only."""

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

__all__ = [
    "Acceptance",
    "Matches",
    "calibrate_sigma",
    "compute_acceptance",
    "compute_closed_set_accuracy",
    "compute_closed_set_hits",
    "compute_impostor_distances",
    "compute_wilson_interval",
    "find_nearest",
    "match",
    "normalize_embeddings",
]
