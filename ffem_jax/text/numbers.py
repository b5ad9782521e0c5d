"""Formats numbers for readers: differences in points, p-values."""

from __future__ import annotations


def format_points(rate: float) -> str:
    """A difference of rates in points, signed."""
    text = f"{100 * rate:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def format_p(p_value: float | None) -> str:
    """A p-value in two digits."""
    return "-" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"
