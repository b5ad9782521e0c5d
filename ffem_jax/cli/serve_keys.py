"""`ffem serve keys add|list|revoke`: manages access to the recognition server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from ffem_jax.cli.server_options import add_database_option, check_installed, choose_action, find_database
from ffem_jax.cli.terminal import DONE, Parser, print_table, say
from ffem_jax.text.tables import make_table

ACTIONS = {
    "add": "create a key; it is printed once and not stored",
    "list": "list the keys, without their secrets",
    "revoke": "revoke a key immediately",
}


def run_keys(words: Sequence[str]) -> int:
    """Run one action on the keys."""
    action = choose_action("serve keys", ACTIONS, words)
    if isinstance(action, int):
        return action
    check_installed()

    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.keys import SCOPES, add_key, list_keys, revoke_key

    parser = Parser(f"serve keys {action}", ACTIONS[action][0].upper() + ACTIONS[action][1:] + ".")
    add_database_option(parser)
    if action == "add":
        scopes = "; ".join(f"{scope}: {what}" for scope, what in SCOPES.items())
        parser.add_argument("--scopes", required=True, metavar="SCOPE,...", help=scopes)
        parser.add_argument("--label", default="", help="a name for the key, such as the app's")
    if action == "revoke":
        parser.add_argument("key_id", metavar="ID", help="as shown by ffem serve keys list")
    options = parser.parse_args(words[1:])
    engine = open_database(find_database(options.database), create=action == "add")
    if action == "add":
        chosen = [scope.strip() for scope in options.scopes.split(",") if scope.strip()]
        key, presented = add_key(engine, chosen, options.label)
        print(json.dumps({"key": presented, **dataclasses.asdict(key)}) if options.json else presented)
        say(f"key {key.key_id} with {', '.join(key.scopes)}: save it now, it cannot be shown again")
    elif action == "revoke":
        revoke_key(engine, options.key_id)
        print(json.dumps({"revoked": options.key_id}) if options.json else f"key {options.key_id} is revoked")
    else:
        keys = list_keys(engine)
        if options.json:
            print(json.dumps([dataclasses.asdict(key) for key in keys]))
        else:
            _print_keys(keys)
    return DONE


def _print_keys(keys: Sequence) -> None:
    rows = [[key.key_id, ", ".join(key.scopes), key.label, key.created_at, key.revoked_at or ""] for key in keys]
    print_table(make_table(["id", "scopes", "label", "created", "revoked"], rows))
