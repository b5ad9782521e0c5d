"""Training: from a spec and faces to trained weights and their metrics."""
