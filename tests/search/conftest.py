"""What the tests of searches share."""

from __future__ import annotations

import pytest

from ffem_jax.search.workers import worker


@pytest.fixture(autouse=True)
def _nothing_to_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings here are made up, and the programs compiled so far belong to other tests of the process."""
    monkeypatch.setattr(worker, "release_memory", lambda: None)
