"""Runs a few lines of JavaScript that import applet/shared, with bytes in and bytes out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "applet" / "shared"


def find_node() -> str:
    """The Node executable, or a skip that says what is missing."""
    node = shutil.which("node")
    if not node:
        pytest.skip("no Node on this machine (Debian: apt-get install nodejs); the page's own code is not compared")
    return node


def run_script(script: str, folder: Path, **inputs: Any) -> Any:
    """The JSON that `script` prints: it has `inputs` (anything JSON takes) and may read files in `folder`."""
    path = folder / "script.mjs"
    path.write_text(f"const inputs = {json.dumps(inputs)};\n{script.replace('SHARED', SHARED.as_uri())}", "utf-8")
    result = subprocess.run([find_node(), str(path)], capture_output=True, text=True, cwd=folder, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
