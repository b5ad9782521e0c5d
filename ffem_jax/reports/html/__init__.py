"""The page people look at: one HTML file of a sweep's records that needs no network. Imports no JAX.

The charts are Vega-Lite, carried by vl-convert. Its scripts are 0.9 MB, Plotly's 4.8 of the 5 MB that a page may
have. With 5,000 networks and their intervals Chromium had drawn Vega's chart after 0.7 to 1.5 s and Plotly's after 4
to 10 (its smaller builds after 1.8 to 6.7). Table, pins and filters are plain scripts. Text from records enters as
text nodes alone.
"""

from ffem_jax.reports.html.page import ReportError, write_report

__all__ = ["ReportError", "write_report"]
