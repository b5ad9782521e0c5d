"""What the tests of the compiled kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ffem_jax.kernels import load_library


@pytest.fixture
def best_instructions() -> Iterator[None]:
    """What a test has chosen of the instruction sets holds for it alone."""
    yield
    load_library().ffem_use_instructions(b"")
