"""docs/python.md runs from top to bottom in an empty folder, and the notebook is the same page."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ffem_jax import api

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", DOCS / "make_notebook.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_page(maker: ModuleType) -> None:
    text = (DOCS / "python.ipynb").read_text(encoding="utf-8")
    assert text == maker.make_notebook(PAGE), "python docs/make_notebook.py writes it anew"
    notebook = json.loads(text)
    cells = notebook["cells"]
    assert ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"] == [one.strip() for one in BLOCKS]
    # What format 4.5 asks of a cell.
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        wanted = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == wanted | ({"outputs", "execution_count"} if cell["cell_type"] == "code" else set())


def test_the_maker_keeps_order_and_loses_nothing(maker: ModuleType) -> None:
    page = "# T\n\none\n\n```python\na = 1\n\nb = 2\n```\n```python\nc\n```\n\ntwo é\n\n```\nffem\n```\n"
    cells = json.loads(maker.make_notebook(page))["cells"]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    assert found == [
        ("markdown", "# T\n\none"),
        ("code", "a = 1\n\nb = 2"),
        ("code", "c"),
        ("markdown", "two é\n\n```\nffem\n```"),
    ]


def test_the_page_names_every_function() -> None:
    table = PAGE.partition("## All names")[2]
    functions = [name for name in api.__all__ if name[0].islower()]
    assert [name for name in functions if f"`{name}`" not in table] == []


@pytest.mark.slow
def test_the_page_runs_in_an_empty_folder(tmp_path: Path) -> None:
    # As a script whose warnings count: what the page does is to be seen as it should be done.
    script = "\n".join(BLOCKS)
    environment = {**os.environ, "FFEM_CACHE_DIR": str(tmp_path / "cache")}
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-W", "error:::ffem_jax", "-c", script]
    done = subprocess.run(command, cwd=tmp_path / "scratch", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "(48, 128) float32 1.000" in lines
    assert any(re.fullmatch(r"eca less none: .* from .* to .*", line) for line in lines)
    assert {path.name for path in (tmp_path / "scratch").iterdir()} == {"faces", "frontier", "outputs"}
