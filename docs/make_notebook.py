"""Regenerate docs/python.ipynb from docs/python.md: python docs/make_notebook.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "python.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")


def make_notebook(page: str) -> str:
    """Return the page as a notebook in format 4.5: its Python blocks become code cells, the rest Markdown cells."""
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(re.split(r"```python\n(.*?)```\n?", page, flags=re.DOTALL)):
        text = part.strip()
        if not text:
            continue
        cell: dict[str, Any] = {"cell_type": "code" if number % 2 else "markdown", "id": f"cell-{len(cells)}"}
        if number % 2:
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell | {"metadata": {}, "source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(make_notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
