"""From a spec and faces to trained weights and what was measured on them."""
