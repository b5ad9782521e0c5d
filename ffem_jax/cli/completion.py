"""`ffem completion bash|zsh`: a script that completes commands, options, settings and names in a shell.

It is generated from the commands' own parsers and the config folders; only the sweeps of the working folder and paths
are looked up while typing. shtab and argcomplete do not support `key=value`, and adapting either takes more code.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NoReturn

from ffem_jax.cli.terminal import DONE, Parser, UsageError

SHELLS = ("bash", "zsh")
# Subcommands that precede the options of some commands.
ACTIONS = {"serve": {"keys": ("add", "list", "revoke"), "people": ("list", "delete")}}


@dataclass(frozen=True)
class Words:
    """What may follow a command.

    options: their names. choices: the values of an option; empty if it takes a path or text, None if it takes nothing.
    positional: choices of the first argument, None for a path. overrides: whether key=value may follow.
    """

    options: tuple[str, ...]
    choices: dict[str, tuple[str, ...] | None]
    positional: tuple[str, ...] | None = None
    overrides: bool = False


def run(words: Sequence[str]) -> int:
    """Print the script."""
    parser = Parser(
        "completion", "Print a script that completes ffem's commands, options, settings and sweeps.",
        epilog="bash: ffem completion bash > ~/.local/share/bash-completion/completions/ffem\n"
               'zsh:  eval "$(ffem completion zsh)" in ~/.zshrc, after compinit',
    )  # fmt: skip
    parser.add_argument("shell", choices=SHELLS, metavar="bash|zsh")
    options = parser.parse_args(words)
    script = write_script(options.shell)
    print(json.dumps({"shell": options.shell, "script": script}) if options.json else script, end="")
    return DONE


def read_commands() -> dict[str, Words]:
    """By command, such as `train` or `serve keys add`, what may follow it."""
    from ffem_jax.cli import COMMANDS
    from ffem_jax.config.compose import find_sweeps

    found = {name: _read_words(_find_parser(module, ())) for name, (module, _) in COMMANDS.items()}
    for name, actions in ACTIONS.items():
        for action, inner in actions.items():
            found[f"{name} {action}"] = Words((), {}, inner)
            with contextlib.suppress(UsageError):  # its libraries are not installed
                for one in inner:
                    found[f"{name} {action} {one}"] = _read_words(_find_parser(COMMANDS[name][0], (action, one)))
        found[name] = dataclasses.replace(found[name], positional=tuple(actions))
    found["sweep"] = dataclasses.replace(found["sweep"], positional=tuple(sorted(find_sweeps())))
    return found


class _FoundError(Exception):
    """Raised to take the parser out of a command."""

    def __init__(self, parser: argparse.ArgumentParser):
        super().__init__()
        self.parser = parser


def _find_parser(module: str, words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser that the command of `module` uses for `words`, without running the command."""
    with _stop_at_parsing():
        try:
            importlib.import_module(module).run(list(words))
        except _FoundError as found:
            return found.parser
    raise RuntimeError(f"{module} reads its words without a Parser")


@contextlib.contextmanager
def _stop_at_parsing() -> Iterator[None]:
    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _FoundError(parser)

    names = ("parse_args", "parse_intermixed_args")
    for name in names:
        setattr(Parser, name, stop)
    try:
        yield
    finally:
        for name in names:
            delattr(Parser, name)


def _read_words(parser: argparse.ArgumentParser) -> Words:
    options: list[str] = []
    choices: dict[str, tuple[str, ...] | None] = {}
    positional = None
    overrides = False
    for action in parser._actions:
        names = tuple(map(str, action.choices or ()))
        options += action.option_strings
        choices |= dict.fromkeys(action.option_strings, None if action.nargs == 0 else names)
        if not action.option_strings:
            overrides = overrides or action.dest == "overrides"
            positional = positional or names or None
    return Words(tuple(options), choices, positional, overrides)


def list_settings() -> dict[str, tuple[str, ...]]:
    """Every key=value key and group with its possible values; empty if there are too many."""
    from ffem_jax.config.compose import list_groups
    from ffem_jax.config.schema import list_keys
    from ffem_jax.specs.fields import list_settings as list_declared
    from ffem_jax.specs.trial import RunSpec, TrialSpec

    declared = [*list_declared(TrialSpec), *list_declared(RunSpec, "run")]
    values = {one.name: tuple(map(str, one.choices)) for one in declared}
    values |= {one.name: ("true", "false") for one in declared if one.type == "bool"}
    groups = {group: tuple(choices) for group, choices in list_groups().items()}
    return {key: values.get(key, ()) for key in list_keys()} | groups


def write_script(shell: str) -> str:
    """The script for one of SHELLS."""
    tables = [f"_ffem_commands={_quote(name for name in _list_commands() if ' ' not in name)}"]
    settings = list_settings()
    tables.append(f"_ffem_keys={_quote(f'{key}=' for key in settings)}")
    tables.append(f"_ffem_values={_quote(f'{key}={value}' for key, values in settings.items() for value in values)}")
    body = resources.files("ffem_jax.cli").joinpath("completion.bash").read_text(encoding="utf-8")
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"# Written by: ffem completion {shell}\n{head}" + "\n".join([*tables, _write_cases()]) + "\n" + body


def _list_commands() -> list[str]:
    from ffem_jax.cli import COMMANDS

    return list(COMMANDS)


def _write_cases() -> str:
    """Return a shell function that sets options, positional, overrides and the choices of the preceding option."""
    lines = ["_ffem_look_up() {", '  case "$1" in']
    for command, words in read_commands().items():
        lines.append(f"    {shlex.quote(command)}) options={_quote(words.options)}")
        lines.append(f"      positional={_quote(words.positional or ())} overrides={'1' if words.overrides else ''}")
        lines.append('      case "$2" in')
        for option, choices in words.choices.items():
            if choices is not None:
                lines.append(f"        {option}) takes=1 choices={_quote(choices)} ;;")
        lines += ["      esac ;;"]
    return "\n".join([*lines, "  esac", "}"])


def _quote(words: Any) -> str:
    return shlex.quote(" ".join(words))
