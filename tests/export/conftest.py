"""What the tests of export share: who can run a TensorFlow.js file here."""

from __future__ import annotations

import shutil

import pytest

from ffem_jax.export.tfjs import find_node_packages


@pytest.fixture
def needs_tfjs() -> None:
    """Skip where Node or TensorFlow.js is missing."""
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    if find_node_packages() is None:
        pytest.skip("TensorFlow.js is not installed for Node: npm install in ffem_jax/export/node")
