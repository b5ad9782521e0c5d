"""Figures, by Matplotlib."""
