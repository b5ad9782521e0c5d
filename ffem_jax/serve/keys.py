"""Who may ask what: API keys, each with its scopes. The database holds a hash, the key itself is shown once."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, insert, select, update

from ffem_jax.errors import FfemError
from ffem_jax.serve.database import api_keys, read_clock

# Scope -> what it lets its owner do.
SCOPES = {
    "enrol": "add vectors of a person",
    "match": "ask whose a vector is",
    "read": "list people, and export one person's data",
    "delete": "delete a person",
}
PREFIX = "ffem"
LABEL_LENGTH = 100


class UnusableKey(FfemError):
    """A key that cannot be made or found. The message is one line."""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. revoked_at: empty while it is valid; times in UTC, ISO 8601."""

    key_id: str
    scopes: tuple[str, ...]
    label: str
    created_at: str
    revoked_at: str = ""


def add_key(engine: Engine, scopes: Iterable[str], label: str = "") -> tuple[ApiKey, str]:
    """Make a key: what is stored of it, and the key itself, which is stored nowhere.

    Raises UnusableKey for no scope, one that there is not, and a label that is too long.
    """
    chosen = tuple(scope for scope in SCOPES if scope in set(scopes))
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not chosen:
        named = f"there is no scope {unknown[0]!r}" if unknown else "a key needs a scope"
        raise UnusableKey(f"{named}; choose from {', '.join(SCOPES)}")
    if len(label) > LABEL_LENGTH:
        raise UnusableKey(f"a label has at most {LABEL_LENGTH} characters; this one has {len(label)}")
    # 256 random bits cannot be guessed, so a plain hash hides them as well as a slow one would.
    key = ApiKey(secrets.token_hex(4), chosen, label, read_clock())
    secret = secrets.token_urlsafe(32)
    with engine.begin() as connection:
        connection.execute(
            insert(api_keys).values(
                key_id=key.key_id,
                digest=_hash(secret),
                scopes=",".join(chosen),
                label=label,
                created_at=key.created_at,
            )
        )
    return key, f"{PREFIX}_{key.key_id}_{secret}"


def list_keys(engine: Engine) -> list[ApiKey]:
    """Every key there was, the oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)).all()
    return [_to_key(row) for row in rows]


def revoke_key(engine: Engine, key_id: str) -> None:
    """Make a key invalid from now on. Raises UnusableKey where there is none of that id, or no longer."""
    valid = (api_keys.c.key_id == key_id) & api_keys.c.revoked_at.is_(None)
    with engine.begin() as connection:
        if not connection.execute(update(api_keys).where(valid).values(revoked_at=read_clock())).rowcount:
            raise UnusableKey(f"there is no valid key {key_id!r}; ffem serve keys list shows them")


def check_key(engine: Engine, presented: str) -> ApiKey | None:
    """The valid key that `presented` is, or None. Takes as long for a wrong secret as for a right one."""
    prefix, _, rest = presented.partition("_")
    key_id, _, secret = rest.partition("_")
    row = None
    # Only what could be an id goes to the database.
    if prefix == PREFIX and len(key_id) == 8 and key_id.isascii() and key_id.isalnum():
        with engine.connect() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).first()
    right = hmac.compare_digest(_hash(secret), bytes(row.digest) if row else bytes(32))
    return _to_key(row) if row and right and row.revoked_at is None else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _to_key(row: Any) -> ApiKey:
    return ApiKey(row.key_id, tuple(row.scopes.split(",")), row.label, row.created_at, row.revoked_at or "")
