"""What the search believes: points as numbers, a surrogate of untrained networks, and what follows from it."""
