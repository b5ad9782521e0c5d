"""The interactive report: one HTML file of a sweep's records that works offline. Imports no JAX.

The charts are Vega-Lite, bundled by vl-convert. Its scripts take 0.9 MB, Plotly's 4.8 of the 5 MB that a page may have.
With 5,000 networks and their intervals, Chromium drew Vega's chart in 0.7 to 1.5 s and Plotly's in 4 to 10 s (its
smaller builds in 1.8 to 6.7 s). Table, pins and filters are plain scripts. Text from records is only ever inserted as
text nodes.
"""

from ffem_jax.reports.html.page import ReportError, write_report

__all__ = ["ReportError", "write_report"]
