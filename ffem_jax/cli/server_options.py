"""What the commands around the recognition server share: its database, and whether its libraries are there."""

from __future__ import annotations

import os

from ffem_jax.cli.terminal import Parser, UsageError

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


def check_installed() -> None:
    """Raise UsageError where the server's libraries are missing."""
    try:
        import fastapi
        import limits
        import sqlalchemy
        import uvicorn
    except ImportError as error:
        raise UsageError(f"ffem serve needs {error.name}; pip install 'ffem-jax[serve]'") from None
    del fastapi, limits, sqlalchemy, uvicorn
