"""Combines the folds of LFW's View 2, from records only: `write_view2`."""

from ffem_jax.reports.view2.combine import View2Error, View2Result, combine_folds
from ffem_jax.reports.view2.report import View2Report, write_view2

__all__ = ["View2Error", "View2Report", "View2Result", "combine_folds", "write_view2"]
