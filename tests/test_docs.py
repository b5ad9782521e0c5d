"""The guides: every link leads somewhere, every command is one, every Python example runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ffem_jax.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", REPOSITORY / "ARCHITECTURE.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def name_anchors(page: Path) -> set[str]:
    """What `#...` may follow the page's name: its headings in small letters, with hyphens."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in name_anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one(page: Path) -> None:
    blocks = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    words = [word for block in blocks for word in re.findall(r"^ffem (\w+)", block, re.MULTILINE)]
    assert set(words) <= set(COMMANDS)


def test_the_readme_leads_to_every_guide() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    guides = [page.relative_to(REPOSITORY).as_posix() for page in PAGES if page.parent.name == "docs"]
    assert guides
    assert [guide for guide in guides if guide not in readme] == []


def test_the_example_of_records_runs_and_draws_the_readmes_figure(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pip install 'ffem-jax[frame]'")
    (tmp_path / "results").symlink_to(REPOSITORY / "results")
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "records.md").read_text("utf-8"), re.DOTALL)
    script = "\n".join([*blocks, "networks.to_json('networks.json')"])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    drawn = json.loads((tmp_path / "frontier" / "frontier.json").read_text("utf-8"))
    shown = json.loads((REPOSITORY / "results" / "placement" / "frontier.json").read_text("utf-8"))
    assert drawn["frontier"] == shown["frontier"]
    means = json.loads((tmp_path / "networks.json").read_text("utf-8"))["accuracy"].values()
    accuracies = [network["accuracy"] for network in shown["networks"] if network["accuracy"] is not None]
    assert sorted(means) == pytest.approx(sorted(accuracies))
