"""`ffem paper RECORDS...`: the paper's tables and curves, from records of its networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.groups import check_attributes, choose_attributes, load_recorded_faces
from ffem_jax.cli.recorded import add_records, choose_out, find_records, read_all, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.text.tables import print_prose

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord
    from ffem_jax.reports.paper import ImageGroups


def run(words: Sequence[str]) -> int:
    """Write the page and its figures, and print Table 2 and its conclusion."""
    parser = Parser("paper", "The paper's Tables 2 and 3, its curves, and its networks compared in pairs: one page.")
    add_records(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: paper/ beside the first records, if new")
    parser.add_argument(
        "--attributes", type=Path, metavar="FILE.csv", help="columns `path` (person/file) and any others, for Table 3; "
        "the faces must be available, since records hold no names",
    )  # fmt: skip
    parser.add_argument("--data-root", metavar="DIR", help="current location of the faces; default: the recorded one")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.reports.paper import write_paper
    from ffem_jax.reports.paper.answer import write_answer
    from ffem_jax.reports.paper.published import find_network
    from ffem_jax.reports.paper.tables import QUESTION
    from ffem_jax.reports.table import render_table
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    if options.attributes:
        check_attributes(options.attributes)
    out = choose_out(options.out, paths[0].parent / "paper", "--out DIR")
    check_writable(out, "--out DIR")
    # The page counts trials of other networks, regardless of their faces.
    others = [record for record in read_all(paths) if not find_network(record)]
    records = [*others, *read_comparable(paths, options.faces, lambda record: bool(find_network(record)))]
    groups: ImageGroups | str = "no --attributes FILE.csv was given"
    if options.attributes:
        groups = find_groups(records, options.attributes, options.data_root)
    result, files = write_paper(records, out, groups)
    if options.json:
        print(json.dumps({**result.to_dict(), "files": [path.name for path in files]}))
    else:
        for one in result.settings:
            marks = [one.frontier is not None and row.network.name in one.frontier.names for row in one.rows]
            mark = "SYNTHETIC FACES: " if result.synthetic else ""
            title = f"{mark}recipe {one.setting.label}"
            print_table(render_table([row.summary for row in one.rows], marks, QUESTION, title))
            print_prose(write_answer(one).replace("**", ""))
    say(f"page: {files[0]}")
    return DONE


def find_groups(records: Sequence[TrialRecord], path: Path, data_root: str | None) -> ImageGroups | str:
    """The groups of the images that `records` were tested on, or the reason why there are none.

    Raises UsageError and FrontierError for a file without usable columns: the user can fix that, whereas the faces
    may be gone for good.
    """
    from ffem_jax.analysis.groups import choose_records, cut_columns
    from ffem_jax.analysis.summary import FrontierError
    from ffem_jax.data import DataError
    from ffem_jax.reports.paper import ImageGroups
    from ffem_jax.reports.paper.published import choose_columns
    from ffem_jax.reports.paper.settings import find_settings

    settings, _ = find_settings(records)
    try:
        tested = choose_records([record for setting in settings for record in setting.records])
        faces = load_recorded_faces(tested, data_root)
    except FrontierError as error:
        return str(error)
    except (DataError, UsageError) as error:
        # The error names folders of this machine, which the page must not.
        say(f"Table 3 is left out: {error}")
        return "the faces of these records were not available, and records hold no names"
    attributes = choose_attributes(faces, path)
    columns, notes = cut_columns(attributes, choose_columns(attributes))
    for note in notes:
        say(note)
    if not columns:
        raise UsageError(f"--attributes {path} has no column of groups beside `path`")
    return ImageGroups(columns, faces.labels)
