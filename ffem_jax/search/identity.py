"""The identity of a study: the settings that all searches sharing it must agree on."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from optuna.storages import BaseStorage

LONGEST = 60  # characters of a value in a message


def settle_identity(storage: BaseStorage, study_id: int, identity: dict[str, Any]) -> list[str]:
    """Store `identity` in a study that has none, or compare it with the stored one. The caller holds the study's lock.

    Returns:
        Each setting that differs, in the form of `describe_changes`; empty if the two are equal.
    """
    identity = json.loads(json.dumps(identity))
    known = storage.get_study_user_attrs(study_id).get("identity")
    for place in ("root", "cache_dir"):  # older studies store these for a pretraining
        ((known or {}).get("pretrain") or {}).get("data", {}).pop(place, None)
    if known is None or known.keys() == identity.keys() - {"faces"}:  # older studies lack it
        known = {**identity, **(known or {})}
        storage.set_study_user_attr(study_id, "identity", known)
    return describe_changes(known, identity)


def describe_changes(then: Any, now: Any, name: str = "") -> list[str]:
    """Return each setting in which two identities (nested dicts and lists) differ: `recipe.epochs (8 then, 9 now)`."""
    if then == now:
        return []
    pair = (then, now)
    if all(isinstance(one, list) and one and isinstance(one[0], dict) for one in pair) and len(then) == len(now):
        # Stages, by position; a list of plain values is one setting.
        then, now = ({str(place): part for place, part in enumerate(one)} for one in pair)
    if isinstance(then, dict) and isinstance(now, dict):
        prefix = f"{name}." if name else ""
        parts = [(key, then.get(key), now.get(key)) for key in sorted({**then, **now})]
        return [line for key, a, b in parts for line in describe_changes(a, b, f"{prefix}{key}")]
    if name == "faces":  # fingerprints mean nothing to a reader
        return ["other faces"]
    shown = [textwrap.shorten("nothing" if value is None else json.dumps(value), LONGEST) for value in (then, now)]
    return [f"{name} ({shown[0]} then, {shown[1]} now)"]
