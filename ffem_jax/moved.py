"""Maps module names of version 0.1 to current ones: old imports still work, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_FRONTIER = {
    "analysis": "agreement comparability compare comparison groups hypervolume labels pairing pareto question summary",
    "figures": "annotations canvas forest layout marks scales styles",
}
MOVED = {
    "arch": "specs.architecture",
    "spec": "specs.trial",
    "names": "text.names",
    "text": "text.display",
    "records": "records.record",
    "processor": "machine.processor",
    "devices": "machine.devices",
    "config": "config.compose",
    "overrides": "config.overrides",
    "plugins": "config.plugins",
    "schema": "config.schema",
    "cost": "cost.cost",
    "liveness": "cost.liveness",
    "train": "training.trainer",
    "trial": "runs.trial",
    "sweep": "runs.sweep",
    "progress": "runs.progress",
    "finalists": "reports.finalists",
    "paper": "reports.paper",
    "report": "reports.html",
    "view2": "reports.view2",
    "frontier": "reports.frontier",
    "frontier.report": "reports.frontier",
    "frontier.plots": "figures.frontier",
    "frontier.column": "figures.paper_figure",
    "frontier.reading": "reports.wording",
    "frontier.table": "reports.table",
    **{
        name: f"training.{name}"
        for name in "checkpoint classifier evaluate loggers losses pretraining recipes weights".split()
    },
    **{f"frontier.{name}": f"{room}.{name}" for room, names in _FRONTIER.items() for name in names.split()},
    **{
        f"search.{name}": f"search.model.{name}"
        for name in "effects encoding prediction proposal surrogate volume".split()
    },
    **{f"search.{name}": f"search.workers.{name}" for name in "adoption following launch worker".split()},
}
# Names that `ffem_jax.frontier` exported from several packages.
_ELSEWHERE = {
    "FrontierError": "analysis.comparability",
    "NetworkSummary": "analysis.summary",
    "summarize_records": "analysis.summary",
    "compute_hypervolume": "analysis.hypervolume",
    "find_pareto": "analysis.pareto",
}


class MovedFinder:
    """Finds an old module name and forwards attribute access to the new module.

    A finder and a loader without importlib.abc, whose import takes longer than all of `ffem --help`.
    """

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module as usual."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a forwarding module, for old names only."""
        old = name.removeprefix("ffem_jax.")
        if old == name or old not in MOVED:
            return None
        return ModuleSpec(name, self, is_package=old == "frontier")  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        """Make `module` forward to its new location."""
        old = module.__name__.removeprefix("ffem_jax.")
        new = f"ffem_jax.{MOVED[old]}"
        warnings.warn(f"{module.__name__} is {new} now", DeprecationWarning, stacklevel=2)

        def forward(name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            where = f"ffem_jax.{_ELSEWHERE[name]}" if old == "frontier" and name in _ELSEWHERE else new
            return getattr(importlib.import_module(where), name)

        module.__dict__["__getattr__"] = forward


def forward_from(package: str) -> None:
    """Make the package `package`, formerly a module, export that module's names."""
    module = sys.modules[package]
    new = f"ffem_jax.{MOVED[package.removeprefix('ffem_jax.')]}"

    def forward(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(new), name)

    module.__dict__["__getattr__"] = forward


def install() -> None:
    """Install the finder for old names. Repeated calls have no effect."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
