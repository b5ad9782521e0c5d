"""Formats numbers for readers: differences in points, p-values."""

from __future__ import annotations


def format_points(rate: float) -> str:
    """Format a difference of rates in points, with its sign."""
    text = f"{100 * rate:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def format_p(p_value: float | None) -> str:
    """Format a p-value with two digits."""
    return "-" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"
