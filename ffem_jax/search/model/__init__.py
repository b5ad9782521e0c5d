"""The model of a search: points as numbers, a surrogate for untrained networks, and what is computed from it."""
