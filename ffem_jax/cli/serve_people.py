"""`ffem serve people list|delete`: manages the people in the gallery, for all models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffem_jax.cli.server_options import add_database_option, check_installed, choose_action, find_database
from ffem_jax.cli.terminal import DONE, Parser, print_table, say, show
from ffem_jax.text.tables import Column, make_table

if TYPE_CHECKING:
    from ffem_jax.serve.people import Person

ACTIONS = {
    "list": "list the enrolled people: name, id, number of vectors",
    "delete": "delete a person and all their vectors, also from the database's files",
}


def run_people(words: Sequence[str]) -> int:
    """Run one action on the people."""
    action = choose_action("serve people", ACTIONS, words)
    if isinstance(action, int):
        return action
    check_installed()

    from ffem_jax.serve.database import open_database

    parser = Parser(f"serve people {action}", f"{ACTIONS[action][0].upper()}{ACTIONS[action][1:]}.")
    add_database_option(parser)
    if action == "delete":
        parser.add_argument("person", metavar="NAME|ID", help="as shown by ffem serve people list")
    options = parser.parse_args(words[1:])
    engine = open_database(find_database(options.database), create=False)
    try:
        if action == "delete":
            from ffem_jax.serve.people import choose_person, erase_person

            person = choose_person(engine, options.person)
            wiped = erase_person(engine, person.person_id)
            _tell_deleted(person, wiped, options.json)
        else:
            from ffem_jax.serve.people import read_all_people

            _print_people(sorted(read_all_people(engine), key=lambda one: one.name), options.json)
    finally:
        engine.dispose()
    return DONE


def _print_people(people: Sequence[Person], as_json: bool) -> None:
    rows = [_describe(person) for person in people]
    if as_json:
        print(json.dumps(rows))
        return
    columns: list[Column | str] = ["name", Column("id", whole=True), Column("vectors", right=True), "enrolled"]
    print_table(
        make_table(
            columns, [[row["name"], row["person_id"], f"{row['vectors']:,}", row["enrolled_at"]] for row in rows]
        )
    )


def _tell_deleted(person: Person, wiped: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"deleted": _describe(person), "wiped": wiped}))
    else:
        show(f"deleted: {person.name}, {person.vectors:,} vectors")
    if not wiped:
        say("ffem: warning: the database's files could not be rewritten; they may still contain deleted data")


def _describe(person: Person) -> dict:
    from ffem_jax.serve.people import write_id

    return {**dataclasses.asdict(person), "person_id": write_id(person.person_id)}
