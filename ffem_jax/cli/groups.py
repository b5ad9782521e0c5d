"""`ffem groups RECORDS...`: accuracy by group of test images, such as with and without glasses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.recorded import add_metric, add_records, find_records, read_all, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.text.tables import print_prose

if TYPE_CHECKING:
    import numpy as np

    from ffem_jax.data import Faces
    from ffem_jax.records.record import TrialRecord


def run(words: Sequence[str]) -> int:
    """Print each network's accuracy by group, and test the largest gap."""
    parser = Parser("groups", "Accuracy by group of test images. The faces must be available: records hold no names.")
    add_records(parser)
    parser.add_argument(
        "--attributes", type=Path, metavar="FILE.csv", help="columns `path` (person/file) and any others; default: "
        "attributes.csv beside the faces",
    )  # fmt: skip
    parser.add_argument(
        "--by", action="append", default=[], metavar="COLUMN[:CUTS]",
        help="such as gender, or eyeglasses_probability:0.1,0.5 (numbers, binned); may be repeated; default: all",
    )  # fmt: skip
    add_metric(parser)
    parser.add_argument("--data-root", metavar="DIR", help="current location of the faces; default: the recorded one")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.analysis.groups import choose_records, compute_groups, cut_columns
    from ffem_jax.analysis.independence import describe_exclusions
    from ffem_jax.analysis.labels import describe_data
    from ffem_jax.reports.groups import groups_to_dict, render_groups, write_gap

    paths = find_records(options.records)
    if options.attributes:
        check_attributes(options.attributes)
    recorded = read_comparable(paths, options.faces)
    records = choose_records(recorded, options.metric)
    faces = load_recorded_faces(records, options.data_root)
    attributes = choose_attributes(faces, options.attributes)
    if not attributes and options.attributes:
        raise UsageError(f"--attributes {options.attributes} has no column of groups beside `path`")
    if not attributes:
        raise UsageError(f"data={records[0].data} has no attributes; give --attributes FILE.csv")
    columns, notes = cut_columns(attributes, options.by)
    found = compute_groups(records, columns, faces.labels, options.metric, among=read_all(paths))
    title = describe_data(records, (record.resolution for record in records), (one.images for one in found))
    exclusions = describe_exclusions(records)
    if options.json:
        synthetic = any(record.synthetic for record in records)
        rows = [groups_to_dict(one) for one in found]
        told = {"title": title, "synthetic": synthetic, "metric": options.metric, "exclusions": exclusions}
        print(json.dumps({**told, "groups": rows}))
    else:
        mark = "SYNTHETIC FACES: " if any(record.synthetic for record in records) else ""
        print_table(render_groups(found, mark + title))
        for sentence in (*map(write_gap, found), *exclusions):
            print_prose(f"- {sentence}")
    for note in notes:
        say(note)
    return DONE


def check_attributes(path: Path) -> None:
    """Raise UsageError unless `path` is a file that can be opened."""
    if not path.is_file():
        raise UsageError(f"--attributes {path} is not a file; give a CSV with a column `path`")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"--attributes {path} cannot be read ({error.strerror}); check its permissions") from None


def load_recorded_faces(records: Sequence[TrialRecord], data_root: str | None) -> Faces:
    """Load the faces that `records` were tested on, from `data_root` or from the recorded location.

    Raises DataError if they cannot be loaded and UsageError if they differ from those recorded.
    """
    from ffem_jax.data import load_faces
    from ffem_jax.data.recorded import KnownFaces, describe_change

    data = records[0].view.data
    data = dataclasses.replace(data, root=data_root) if data_root else data
    faces = load_faces(data)
    strange = [record for record in records if record.pictures_fingerprint != faces.pictures_fingerprint]
    if strange:
        one = strange[0]
        images = one.train_images + one.validated + (one.tested or 0) if one.train_images else 0
        then = KnownFaces(images=images, people=one.people)
        whose = f"{len(strange)} of {len(records)} recorded trials were tested on"
        raise UsageError(f"{describe_change(data, faces, then, whose)}, or other records with --faces")
    return faces


def choose_attributes(faces: Faces, path: Path | None) -> dict[str, np.ndarray]:
    """Read the columns of the file `path`, or those that come with the faces; report anomalies.

    Raises UsageError for an unusable file.
    """
    from ffem_jax.data.attributes import AttributesError, read_attributes
    from ffem_jax.data.listing import TABLE_NAME

    if path:
        try:
            attributes, notes = read_attributes(path, faces.names)
        except AttributesError as error:
            raise UsageError(f"--attributes {path}: {error}") from None
    else:
        attributes, notes = faces.attributes, tuple(note for note in faces.notes if TABLE_NAME in note)
        if notes and not attributes:
            raise UsageError(f"{notes[0]}; fix it, or give --attributes FILE.csv")
    for note in notes:
        say(f"warning: {note}")
    return attributes
