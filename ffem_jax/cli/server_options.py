"""Shared by the commands of the recognition server: the database option and the check for its libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ffem_jax.cli.terminal import BAD_USAGE, DONE, Parser, UsageError
from ffem_jax.config.overrides import suggest
from ffem_jax.errors import describe_install

DATABASE_VARIABLE = "FFEM_DATABASE"


def add_database_option(parser: Parser) -> None:
    """--database, with its default."""
    parser.add_argument(
        "--database", metavar="URL",
        help=f"sqlite:///FILE or postgresql://USER@HOST/NAME; default: ${DATABASE_VARIABLE}, else sqlite:///gallery.db",
    )  # fmt: skip


def find_database(named: str | None) -> str:
    """Return the given URL or the environment's, which keeps a password out of the process list."""
    from ffem_jax.serve.database import DEFAULT_URL

    return named or os.environ.get(DATABASE_VARIABLE) or DEFAULT_URL


def choose_action(command: str, actions: Mapping[str, str], words: Sequence[str]) -> str | int:
    """Return the action named by the first of `words`, or the exit status if only help was requested.

    actions: name -> description. Raises UsageError for any other word.
    """
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:8} {what}" for name, what in actions.items())
        print(f"usage: ffem {command} ACTION ...\n\n{lines}\n\nSee also: ffem {command} ACTION --help.")
        return DONE if words else BAD_USAGE
    if words[0] not in actions:
        raise UsageError(
            f"there is no action {words[0]!r};{suggest(words[0], actions)} choose one of: {', '.join(actions)}"
        )
    return words[0]


def check_installed() -> None:
    """Raise UsageError if the server's libraries are missing."""
    try:
        import fastapi
        import limits
        import sqlalchemy
        import uvicorn
    except ImportError as error:
        raise UsageError(f"ffem serve needs {error.name}; {describe_install('serve')}") from None
    del fastapi, limits, sqlalchemy, uvicorn
