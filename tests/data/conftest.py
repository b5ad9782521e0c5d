"""What the tests of packed face sets share: drawn faces, and their files."""

from __future__ import annotations

import numpy as np
import pytest
from made_sets import draw_faces, encode


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    pixels, labels = draw_faces()
    return pixels, labels, [encode(one) for one in pixels]
