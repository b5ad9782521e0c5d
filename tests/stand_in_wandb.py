"""As much of Weights & Biases as the logger uses: runs in memory that, as the real ones, take steps in order alone."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any


class Run:
    """A run. rows: what was logged, by step; a step that is over is dropped."""

    def __init__(self, wanted: dict[str, Any], server: dict[str, dict[int, dict[str, float]]]) -> None:
        self.wanted, self.id, self.mode = wanted, wanted["id"], wanted["mode"]
        self.rows = server.setdefault(self.id, {}) if wanted["resume"] == "allow" else {}
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.dropped: list[int] = []
        if self.mode == "offline":
            folder = Path(wanted["dir"]) / "wandb" / f"offline-run-{len(self.rows)}-{self.id}"
            folder.mkdir(parents=True)
            (folder / f"run-{self.id}.wandb").touch()

    def log(self, values: dict[str, float], step: int, commit: bool) -> None:
        assert commit
        if self.rows and step <= max(self.rows):
            self.dropped.append(step)
        else:
            self.rows[step] = dict(values)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Library(types.ModuleType):
    """The module. has_key: whether somebody has logged in; opened: every run."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.has_key, self.opened, self.server = False, [], {}  # type: bool, list[Run], dict[str, Any]

    def login(self, prompt: bool, verify: bool) -> bool:
        assert not prompt
        assert not verify
        return self.has_key

    def Settings(self, **values: Any) -> dict[str, Any]:
        return values

    def init(self, **wanted: Any) -> Run:
        assert wanted["reinit"] == "create_new"
        self.opened.append(Run(wanted, self.server))
        return self.opened[-1]


def install() -> Library:
    """Put the stand-in where the package looks."""
    library = Library()
    sys.modules["wandb"] = library
    return library
