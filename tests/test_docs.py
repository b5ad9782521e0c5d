"""The pages: every link leads somewhere, every command and install line works, the README stays short and plain."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffem_jax import __version__
from ffem_jax.cli import COMMANDS, main
from ffem_jax.config.compose import Composer, find_sweeps, list_groups, open_composer, to_application

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
RESULTS = sorted((REPOSITORY / "results").glob("*/README.md"))
PAGES = [README, REPOSITORY / "ARCHITECTURE.md", *DOCS, *RESULTS]

LINE_LIMIT = 150
ARCHITECTURE_LINE_LIMIT = 130
WORDS_PER_SENTENCE = 15
NUMBERS_PER_PARAGRAPH = 2


def name_page(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_page)


# ------------------------------------------------------------------------------------------ links


def name_anchors(page: Path) -> set[str]:
    """What `#...` may follow the page's name: its headings in small letters, with hyphens."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r' src="([^"]+)"', text)]
    for link in links:
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in name_anchors(target), f"{page.name}: {link}"


def test_the_index_leads_to_every_page_and_the_readme_to_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS if page.name != "README.md" and f"({page.name})" not in index] == []
    assert [name_page(page) for page in RESULTS if f"(../{name_page(page)})" not in index] == []
    assert "(docs/README.md)" in README.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------- plain English


def list_paragraphs(text: str) -> list[str]:
    """Prose alone: no code block, table, heading or image; an item of a list is a paragraph."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"^(\||#|!\[|<img).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return [
        " ".join(part.split())
        for part in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE)
        if part.strip()
    ]


def count_words_per_sentence(paragraphs: list[str]) -> float:
    sentences = [sentence for part in paragraphs for sentence in re.split(r"(?<=[.!?])\s", part) if sentence.strip()]
    return sum(len(re.findall(r"\S*\w\S*", sentence)) for sentence in sentences) / len(sentences)


def list_crowded(paragraphs: list[str], most: int) -> list[str]:
    """The paragraphs with more than `most` numbers, those in code spans counted too."""
    return [part for part in paragraphs if len(re.findall(r"(?<![\w.])\d[\d.,^]*", part)) > most]


def test_the_readme_is_read_in_sixty_seconds() -> None:
    text = README.read_text(encoding="utf-8")
    paragraphs = list_paragraphs(text)
    assert len(text.splitlines()) <= LINE_LIMIT
    assert count_words_per_sentence(paragraphs) <= WORDS_PER_SENTENCE
    assert list_crowded(paragraphs, NUMBERS_PER_PARAGRAPH) == []


def test_the_architecture_is_read_in_ten_minutes() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= ARCHITECTURE_LINE_LIMIT


def test_the_counters_count() -> None:
    page = "# A title\n\nOne two three. Four, `five=1`!\n\n| a | 1 2 3 |\n\n```\ncode 9\n```\n\n- six 2 3 4\n- 7\n"
    paragraphs = list_paragraphs(page)
    assert paragraphs == ["One two three. Four, `five=1`!", "six 2 3 4", "7"]
    assert count_words_per_sentence(paragraphs) == (3 + 2 + 4 + 1) / 4
    assert list_crowded(paragraphs, 2) == ["six 2 3 4"]
    assert list_crowded(["LFW52 has FFEM-AM, int8 and 1,467 images of 3.5 MB"], 2) == []


# --------------------------------------------------------------------------------------- commands


def list_commands(text: str) -> list[list[str]]:
    """The words of every `ffem ...`: lines of code blocks without what two spaces or # set apart, and code spans."""
    blocks = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)))
    lines = [re.split(r"\s{2,}|\s#|;|\s\|", line)[0] for line in blocks.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    found = [re.match(r"(?:\w+=\S+ )*ffem (.*)", line) for line in [*lines, *spans]]
    return [shlex.split(match[1].replace("\\|", "|")) for match in found if match]


@functools.cache
def read_help(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue()


@pytest.fixture
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


def find_fault(words: list[str], composer: Composer, whole: bool = True) -> str:
    """What is wrong with a command of a page, or nothing. whole: compose its settings, and not their names alone."""
    if words[0].startswith("--") or words[0] == "COMMAND":
        return "" if words[0] in ("--help", "--version", "COMMAND") else f"ffem {words[0]}"
    if words[0] not in COMMANDS:
        return f"there is no command {words[0]}"
    options = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    action = words[:1] if words[0] != "serve" else [word for word in words[:3] if re.fullmatch(r"[a-z]+", word)]
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", read_help(*action)))
    if options - known:
        return f"ffem {' '.join(action)} has no {', '.join(sorted(options - known))}"
    for option, value in itertools.pairwise(words):
        choices = re.search(rf"{option} \{{([^}}]*)\}}", read_help(*action)) if option in options else None
        if choices and not set(value.split("|")) <= set(re.split(r",\s*", choices[1])):
            return f"{option} {value} is none of {choices[1]}"
    return (
        ""
        if words[0] not in ("train", "sweep", "cost", "teach") or "--config-dir" in words
        else find_wrong_setting(words, composer, whole)
    )


def find_wrong_setting(words: list[str], composer: Composer, whole: bool) -> str:
    sweep = next((word for word in words[1:] if not word.startswith("-")), "") if words[0] == "sweep" else ""
    if sweep and sweep not in (*find_sweeps(), "NAME"):
        return f"there is no sweep {sweep}"
    settings = [word for word in words[1:] if "=" in word and not word.startswith("-") and "|" not in word]
    # What a launcher and a logger need is not installed everywhere: their names alone are looked at.
    named = [word for word in settings if re.match(r"(launcher|logger)=", word)]
    for group, _, name in (word.partition("=") for word in named):
        if name not in list_groups()[group]:
            return f"{group}={name}"
    others = [word for word in settings if word not in named and not word.startswith(("hydra", "+hydra", "launcher."))]
    try:
        composer.parse(others)
        if whole and words[0] in ("train", "cost") and not {"-m", "--multirun"} & set(words):
            to_application(composer.compose(others))
    except ValueError as error:
        return f"{error}"
    return ""


@each_page
def test_every_command_can_be_typed(page: Path, composer: Composer) -> None:
    commands = list_commands(page.read_text(encoding="utf-8"))
    faults = {shlex.join(words): find_fault(words, composer) for words in commands}
    assert {command: fault for command, fault in faults.items() if fault} == {}


@pytest.mark.parametrize("folder", ["sweeps", *(f"conf/{group}" for group in list_groups())])
def test_every_command_at_the_head_of_a_config_can_be_typed(folder: str, composer: Composer) -> None:
    faults = {}
    for path in sorted((REPOSITORY / folder).rglob("*.yaml")):
        lines = re.findall(r"^#   (ffem .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        commands = list_commands("```\n" + "\n".join(lines) + "\n```")
        faults |= {f"{path.name}: {shlex.join(words)}": find_fault(words, composer, whole=False) for words in commands}
    assert faults
    assert {command: fault for command, fault in faults.items() if fault} == {}


def test_commands_are_found_in_blocks_and_spans() -> None:
    text = (
        "```\nffem cost arch=ffem   what it costs\nX=1 ffem train \\\n  seed=1\n```\nand `ffem list --json`, `ffemx a`."
    )
    assert list_commands(text) == [["cost", "arch=ffem"], ["train", "seed=1"], ["list", "--json"]]


@pytest.mark.parametrize(
    "command",
    [
        "cots",
        "cost --nothing",
        "export T --format tflight --out x",
        "train arch=ffem_a",
        "train logger=board",
        "train recipe.epoch=3",
        "train data.resolution=4",
        "sweep nothing",
        "sweep search launcher=slrum",
        "serve keys add --scope x",
    ],
)
def test_the_check_of_commands_sees_a_fault(command: str, composer: Composer) -> None:
    assert find_fault(command.split(), composer)


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "serve keys add --scopes enrol",
        "train -m arch=ffem,ffem_am seed=0,1",
        "export T --format tfjs|onnx --out x",
        "sweep search launcher=ray hydra.sweeper.n_trials=3",
    ],
)
def test_the_check_of_commands_lets_the_right_ones_pass(command: str, composer: Composer) -> None:
    assert find_fault(command.split(), composer) == ""


def read_extras() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


@pytest.mark.parametrize("folder", ["", "docs", "results", "benchmarks", "applet"])
def test_every_install_line_names_an_extra_that_exists_and_no_index(folder: str) -> None:
    """Of what people read; tests/test_packaging.py looks at messages and configs."""
    top = REPOSITORY / folder
    paths = [path for path in (top.rglob("*") if folder else top.glob("*")) if path.suffix in (".md", ".py")]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if "node_modules" not in path.parts}
    assert texts
    assert [path for path, text in texts.items() if re.search(r"ffem-jax\[\w+", text)] == []
    named = re.compile(r"""pip install .*['"]\.\[([\w,]+)""")
    extras = {extra for text in texts.values() for found in named.findall(text) for extra in found.split(",")}
    assert extras - read_extras() == set()


# --------------------------------------------------------------------------------------- contents


def test_the_citation_is_valid_and_of_this_version() -> None:
    """The fields that the schema of Citation File Format 1.2.0 asks for, and those that are used."""
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    known = {
        "cff-version",
        "message",
        "title",
        "abstract",
        "type",
        "authors",
        "version",
        "license",
        "keywords",
        "references",
    }
    assert set(cited) <= known
    assert (cited["cff-version"], cited["type"], cited["version"]) == ("1.2.0", "software", __version__)
    assert cited["license"] == "Apache-2.0"
    works = [cited, *cited["references"]]
    assert all({"title", "authors", "type"} <= set(work) for work in works)
    assert all("name" in person or "family-names" in person for work in works for person in work["authors"])


def test_the_table_of_extras_is_whole() -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8").partition("## Extras")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == read_extras()


def test_the_readmes_table_has_every_command() -> None:
    table = re.findall(r"^\| `ffem (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(COMMANDS) - set(table) == {"completion"}


def read_differences(path: str) -> list[dict[str, Any]]:
    """The rows of a compare.json, or of the comparisons of attention in paper.json with their recipe as context."""
    read = json.loads((REPOSITORY / "results" / path).read_text(encoding="utf-8"))
    if "rows" in read:
        return list(read["rows"])
    return [
        {**row, "context": setting["recipe"]} for setting in read["settings"] for row in setting["attention"]["rows"]
    ]


@pytest.mark.parametrize(
    ("question", "path", "first", "second", "context"),
    [
        ("match FFEM-AM (8.77 MB)", "search/pretrained/compare.json", "ffem_am", "final_10", ""),
        ("How small can it be", "search/pretrained/compare.json", "ffem_am", "final_1", ""),
        ("with the paper's recipe", "paper/paper.json", "none", "eca", "paper"),
        ("after pretraining", "paper/paper.json", "none", "eca", "fine_tuning, pretrained on lfw_rest"),
        ("Is SE better than ECA", "paper/paper.json", "eca", "se", "fine_tuning, pretrained on lfw_rest"),
    ],
)
def test_a_difference_in_the_readme_is_that_of_the_results(
    question: str, path: str, first: str, second: str, context: str
) -> None:
    (line,) = [line for line in README.read_text(encoding="utf-8").splitlines() if question in line]
    (row,) = [
        row
        for row in read_differences(path)
        if (row["first"], row["second"], row["context"]) == (first, second, context)
    ]
    answer, interval = line.split("|")[2:4]
    assert f"{100 * row['difference']:+.1f} points".removeprefix("+") in answer
    assert interval.strip() == f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    assert ("no significant difference" in answer or "indistinguishable" in answer) != row["shown"]


def test_the_readmes_speed_is_that_of_the_results() -> None:
    page = (REPOSITORY / "results" / "speed" / "train_step.md").read_text(encoding="utf-8")
    speeds = re.findall(r"^- Against (\w+).*?: ([\d.]+) times its speed \(.*?, ([\d.]+) to", page, re.MULTILINE)
    (line,) = [line for line in README.read_text(encoding="utf-8").splitlines() if "training step?" in line]
    assert len(speeds) == 2
    assert all(f"{speed} times {library}" in line for library, speed, _ in speeds)
    assert f"at least {min(least for *_, least in speeds)} per cell" in line


def test_the_small_network_of_the_pages_has_the_bytes_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "phone.md").read_text(encoding="utf-8")
    found = re.search(r"^\| FFEM with `([^`]+)` \| ([\d.]+) \|", page, re.MULTILINE)
    assert found
    assert found[1] in README.read_text(encoding="utf-8")
    assert main(["cost", "arch=ffem", *found[1].split(), "data.resolution=112", "--json"]) == 0
    assert f"{json.loads(capsys.readouterr().out)['bytes_float32'] / 1e6:.2f}" == found[2]


def test_the_example_of_records_runs_and_draws_the_figure_of_placement(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pip install -c constraints.txt -e '.[frame]'")
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
