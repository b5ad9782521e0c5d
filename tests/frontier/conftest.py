"""What the tests of frontiers share: records of trials that never ran."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from made_records import build_record

from ffem_jax.records import TrialRecord


@pytest.fixture(scope="session")
def make_record() -> Callable[..., TrialRecord]:
    return build_record
