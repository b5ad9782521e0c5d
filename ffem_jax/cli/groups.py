"""`ffem groups RECORDS...`: accuracy by group of test images, such as with and without glasses."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.frontier import find_records
from ffem_jax.cli.terminal import DONE, Parser, UsageError, say


def run(words: Sequence[str]) -> int:
    """Print each network's accuracy by group, and whether the largest gap is more than chance."""
    parser = Parser("groups", "Accuracy by group of test images. The faces must be at hand: records hold no names.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    parser.add_argument(
        "--attributes", type=Path, metavar="FILE.csv", help="columns `path` (person/file) and any others; default: "
        "attributes.csv beside the faces",
    )  # fmt: skip
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN[:CUTS]",
        help="such as gender, or eyeglasses_probability:0.1,0.5 (numbers, cut); may be repeated; default: all",
    )  # fmt: skip
    parser.add_argument("--metric", choices=("accuracy", "accuracy_gallery"), default="accuracy")
    parser.add_argument("--data-root", metavar="DIR", help="where the faces are now; default: where the records say")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.data import load_faces
    from ffem_jax.data.decode import read_attributes
    from ffem_jax.frontier.groups import choose_records, compute_groups, cut_columns, render_groups, write_gap
    from ffem_jax.frontier.reading import describe_data
    from ffem_jax.frontier.table import print_table
    from ffem_jax.records import read_records
    from ffem_jax.spec import DataSpec

    paths = find_records(options.records)
    if options.attributes and not options.attributes.is_file():
        raise UsageError(f"--attributes {options.attributes} is no file; give a CSV with a column `path`")
    records = choose_records([record for path in paths for record in read_records(path)], options.metric)
    data = DataSpec(**records[0].spec["data"])
    faces = load_faces(dataclasses.replace(data, root=options.data_root) if options.data_root else data)
    strange = [record for record in records if record.pictures_fingerprint != faces.pictures_fingerprint]
    if strange:
        raise UsageError(
            f"the faces of data={data.name} at hand are not those of {len(strange)} of {len(records)} trials "
            f"(fingerprint {faces.pictures_fingerprint}, recorded {strange[0].pictures_fingerprint}); see --data-root"
        )
    attributes = faces.attributes
    if options.attributes:
        attributes, trouble = read_attributes(options.attributes, faces.names)
        if trouble:
            raise UsageError(trouble[0])
    if not attributes:
        raise UsageError(f"data={data.name} comes without attributes; give --attributes FILE.csv")
    columns, notes = cut_columns(attributes, options.by)
    found = compute_groups(records, columns, faces.labels, options.metric)
    title = describe_data(records, (record.resolution for record in records), (one.images for one in found))
    if options.json:
        synthetic = any(record.synthetic for record in records)
        rows = [one.to_dict() for one in found]
        print(json.dumps({"title": title, "synthetic": synthetic, "metric": options.metric, "groups": rows}))
    else:
        mark = "SYNTHETIC FACES: " if any(record.synthetic for record in records) else ""
        print_table(render_groups(found, mark + title), sys.stdout)
        for one in found:
            print(f"- {write_gap(one)}")
    for note in notes:
        say(note)
    return DONE
