"""The page people look at: one HTML file of a sweep's records that needs no network. Imports no JAX."""

from ffem_jax.reports.html.page import ReportError, write_report

__all__ = ["ReportError", "write_report"]
