"""What the commands around the recognition server share: its database, and whether its libraries are there."""

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
    """The URL that was given, or the environment's, which keeps a password out of the list of processes."""
    from ffem_jax.serve.database import DEFAULT_URL

    return named or os.environ.get(DATABASE_VARIABLE) or DEFAULT_URL


def choose_action(command: str, actions: Mapping[str, str], words: Sequence[str]) -> str | int:
    """The action that `words` begin with, or the exit status where its help was all that was asked for.

    actions: name -> what it does. Raises UsageError for a word that is none of them.
    """
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:8} {what}" for name, what in actions.items())
        print(f"usage: ffem {command} ACTION ...\n\n{lines}\n\nffem {command} ACTION --help says more.")
        return DONE if words else BAD_USAGE
    if words[0] not in actions:
        raise UsageError(
            f"there is no action {words[0]!r};{suggest(words[0], actions)} choose one of: {', '.join(actions)}"
        )
    return words[0]


def check_installed() -> None:
    """Raise UsageError where the server's libraries are missing."""
    try:
        import fastapi
        import limits
        import sqlalchemy
        import uvicorn
    except ImportError as error:
        raise UsageError(f"ffem serve needs {error.name}; {describe_install('serve')}") from None
    del fastapi, limits, sqlalchemy, uvicorn
