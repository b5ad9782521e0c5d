"""`ffem settings [PATTERN]`: lists every key=value setting; `--markdown` writes docs/settings.md."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import fnmatch
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffem_jax.cli.terminal import DONE, Parser, UsageError, add_config_dir, print_table
from ffem_jax.specs.fields import Setting
from ffem_jax.text.display import escape, escape_sentence, make_markdown_table, quote_code
from ffem_jax.text.tables import Column, make_table

TYPES = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}
# Sections of the page: prefix of the names, title, and a sentence.
SECTIONS = (
    ("arch.attention.", "Attention", ""),
    ("arch.", "Network", "For the settings of a row of the stage table, replace `N` with its number, counted from 0."),
    ("data.", "Faces", ""),
    ("protocol.", "Training and test images", ""),
    ("recipe.", "Training", ""),
    ("teacher.", "Teacher", ""),
    ("pretrain.", "Pretraining", "The faces, split and recipe of the first training."),
    ("run.", "Run", "These do not affect results."),
    ("launcher.", "Launcher", ""),
    ("hydra.sweeper.", "Search", "For sweeps with `hydra/sweeper=search`, such as `ffem sweep search`."),
    ("hydra.", "Folders", ""),
    ("", "General", ""),
)
HEAD = """# Settings

Give any setting as `name=value` after `ffem train`, `ffem sweep` or `ffem cost`. `ffem settings PATTERN` prints the
settings whose names contain a text, such as `ffem settings kernel`; `ffem settings "recipe.*"` prints a group.

The default applies unless you set another value. A choice of a group, such as `recipe=paper`, sets several values:
`ffem train --cfg recipe=paper` prints them all.

`make settings` generates this page from the declarations in `ffem_jax/specs/`.
"""


def run(words: Sequence[str]) -> int:
    """Print the settings that match."""
    options = make_parser().parse_args(words)
    settings = list_everything(options.config_dir)
    if options.markdown:
        if options.json or options.patterns:
            raise UsageError("--markdown writes the whole page; leave out --json and the patterns")
        print(write_page(settings, _list_groups()), end="")
        return DONE
    settings = select_matching(settings, options.patterns)
    if options.json:
        print(json.dumps([describe(one) for one in settings]))
    else:
        rows = [[one.name, describe_in_words(one)] for one in settings]
        print_table(make_table([Column("setting", whole=True), Column("values, default, meaning", fold=True)], rows))
    return DONE


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = Parser(
        "settings", "List the settings of train, sweep and cost: values, default, meaning.",
        epilog="such as: ffem settings kernel, ffem settings 'recipe.*', ffem settings hydra.sweeper",
    )  # fmt: skip
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="part of a name; * and ? are wildcards")
    parser.add_argument("--markdown", action="store_true", help="print all of them as docs/settings.md")
    add_config_dir(parser)
    return parser


def list_everything(config_dir: Path | None = None) -> list[Setting]:
    """Return every setting, including those of searches and Hydra's folders; defaults are those of conf/config.yaml."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    from ffem_jax.config.compose import AUTO_DIR, open_composer
    from ffem_jax.config.schema import ApplicationSpec
    from ffem_jax.search.settings import SearchSettings
    from ffem_jax.specs.attention import ATTENTIONS
    from ffem_jax.specs.fields import list_settings
    from ffem_jax.specs.own_code import load_plugins

    with open_composer(config_dir) as composer:
        load_plugins()
        config = composer.compose([])
        settings = []
        for one in list_settings(ApplicationSpec):
            if ".N." not in one.name:
                default: Any = OmegaConf.select(config, one.name)
                plain = OmegaConf.to_container(default) if isinstance(default, DictConfig | ListConfig) else default
                one = dataclasses.replace(one, default=plain)
            settings.append(one)
    for kind in ATTENTIONS.kinds.values():
        for name, value in kind.options.items():
            meaning = f"Read by arch.attention.kind={kind.name}."
            full = f"arch.attention.options.{name}"
            settings.append(Setting(full, type(value).__name__, value, None, None, (), "", meaning, ""))
    search = list_settings(SearchSettings, "hydra.sweeper")
    settings += [one for one in search if not one.name.endswith("._target_")]
    for name, what in (("hydra.run.dir", "a trial of ffem train"), ("hydra.sweep.dir", "a sweep")):
        meaning = f"The folder of {what}; {AUTO_DIR} is a stable one in outputs/."
        settings.append(Setting(name, "str", AUTO_DIR, None, None, (), "", meaning, ""))
    return settings


def _list_groups() -> dict[str, list[str]]:
    from ffem_jax.config.compose import list_groups

    return list_groups()


def select_matching(settings: Sequence[Setting], patterns: Sequence[str]) -> list[Setting]:
    """Return the settings whose names match one of `patterns`; all of them without patterns.

    A pattern is part of a name, or the complete name if it contains `*` or `?`. Text after `=` is ignored, and the
    number of a row matches any row.

    Raises:
        UsageError: a pattern matches nothing; the message gives similar names.
    """
    kept: dict[str, Setting] = {}
    for pattern in patterns:
        wanted = re.sub(r"\.\d+(?=\.|$)", ".N", pattern.partition("=")[0].strip()).lower()
        found = [one for one in settings if _matches(one.name.lower(), wanted)]
        if not found:
            raise UsageError(
                f"no setting matches {pattern!r};{suggest_names(wanted, settings)} ffem settings lists all"
            )
        kept |= {one.name: one for one in found}
    return [one for one in settings if not patterns or one.name in kept]


def _matches(name: str, wanted: str) -> bool:
    if re.search(r"[*?]", wanted):
        return fnmatch.fnmatchcase(name, wanted)
    return wanted in name


def suggest_names(wanted: str, settings: Sequence[Setting]) -> str:
    """Return ` did you mean X or Y?` with full names similar in name or last part; empty if there are none."""
    names = [one.name for one in settings if not one.name.startswith("pretrain.") or wanted.startswith("pretrain")]
    typed = wanted.split(".")[-1]
    last = {name: name.split(".")[-1] for name in names}
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.7)
    for parts in ({part: [part] for part in last.values()}, {part: part.split("_") for part in last.values()}):
        if not close:  # by the last part of a name, then by a word of that
            found = difflib.get_close_matches(
                typed, {word for words in parts.values() for word in words}, n=2, cutoff=0.7
            )
            close = [name for name in names if set(found) & set(parts[last[name]])][:3]
    if not close and wanted:  # by a word of what it means
        close = [one.name for one in settings if one.name in names and wanted in one.meaning.lower()][:3]
    return f" did you mean {' or '.join(close)}?" if close else ""


# -------------------------------------------------------------------------------------- as text


def describe(one: Setting) -> dict[str, Any]:
    """Return a setting for JSON; an infinite bound is null."""
    row = dataclasses.asdict(one)
    bounds = {key: None if row[key] in (float("inf"), float("-inf")) else row[key] for key in ("low", "high")}
    return {**row, **bounds, "choices": list(one.choices)}


def describe_in_words(one: Setting) -> str:
    """Values, default, meaning and source in one text."""
    default = "" if ".N." in one.name else f"; default {write_default(one)}"
    source = f" [{one.source}]" if one.source else ""
    return f"{describe_values(one)}{default}. {one.meaning}{source}"


def describe_values(one: Setting) -> str:
    """Describe the valid values: the choices, or a type with its bounds and unit."""
    if one.choices:
        several = "some of " if one.type.startswith(("tuple", "list")) else ""
        return several + ", ".join(map(str, one.choices))
    name = one.type
    if row := re.fullmatch(r"tuple\[(\w+), \.\.\.\]|list\[(\w+)\]", name):
        inner = row[1] or row[2]
        name = f"list of {TYPES[inner]}s" if inner in TYPES else "list of rows"
    elif name.startswith("dict"):
        name = "mapping"
    else:
        # A field declared as Any is checked by its spec; its meaning lists the valid values.
        words = [TYPES.get(part.strip(), "") for part in name.replace("Any", "").split("|")]
        name = " or ".join(filter(None, words)) + (" or null" if "None" in name else "") or "see its meaning"
    return name + _describe_bounds(one) + (f" ({one.unit})" if one.unit else "")


def _describe_bounds(one: Setting) -> str:
    low, high = (
        None if bound is None or abs(bound) == float("inf") else f"{bound:.12g}" for bound in (one.low, one.high)
    )
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""


def write_default(one: Setting) -> str:
    """Return the default in command-line syntax."""
    return _write(one.default)


def _write(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_write(item)}" for key, item in value.items()) + "}"
    return str(value) if value != "" else "empty"


# --------------------------------------------------------------------------------------- the page


def write_page(settings: Sequence[Setting], groups: dict[str, list[str]]) -> str:
    """docs/settings.md: a table per section, every setting once."""
    lines = [
        *HEAD.splitlines(),
        "",
        "## Groups",
        "",
        "A choice of a group is a file in `conf/` that sets several values.",
        "",
    ]
    rows = [[quote_code(name), ", ".join(map(quote_code, choices))] for name, choices in groups.items()]
    lines += make_markdown_table(["group", "choices"], rows)
    by_section: dict[str, list[Setting]] = {title: [] for _, title, _ in SECTIONS}
    for one in settings:
        by_section[next(title for start, title, _ in SECTIONS if one.name.startswith(start))].append(one)
    for _, title, sentence in (SECTIONS[-1], *SECTIONS[:-1]):
        if by_section[title]:
            lines += ["", f"## {title}", "", *([sentence, ""] if sentence else [])]
            lines += make_markdown_table(
                ["setting", "values", "default", "meaning", "source"], list(map(_make_row, by_section[title]))
            )
    return "\n".join(lines) + "\n"


def _make_row(one: Setting) -> list[str]:
    default = "" if ".N." in one.name else "empty" if one.default == "" else quote_code(write_default(one))
    values = (
        ", ".join(quote_code(str(choice)) for choice in one.choices) if one.choices else escape(describe_values(one))
    )
    return [quote_code(one.name), values, default.replace("|", "\\|"), escape_sentence(one.meaning), escape(one.source)]
