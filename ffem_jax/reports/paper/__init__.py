"""The paper's tables and curves from records of its networks: `write_paper`."""

from ffem_jax.reports.paper.report import write_paper
from ffem_jax.reports.paper.results import ImageGroups, PaperResult

__all__ = ["ImageGroups", "PaperResult", "write_paper"]
