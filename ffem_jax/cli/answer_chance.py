"""`ffem answer RECORDS... --chance FIRST SECOND`: how often chance alone produces such a lead."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.recorded import read_all
from ffem_jax.cli.terminal import DONE, UsageError, say
from ffem_jax.text.tables import print_prose

if TYPE_CHECKING:
    import numpy as np

    from ffem_jax.records.record import TrialRecord

POINTS, PER_PERSON = 7.7, 2  # the paper's lead, and its test images per person


def run_chance(paths: Sequence[Path], options: argparse.Namespace) -> int:
    """Print the answer; with --out, write the page and the histogram. Raises UsageError unless the lead is above 0."""
    from ffem_jax.analysis.chance import resample_leads
    from ffem_jax.reports.chance import leads_to_dict, write_chance, write_sentence

    points = POINTS if options.points is None else options.points
    if not (math.isfinite(points) and points > 0):
        raise UsageError(f"--points {points:g}: give a lead above 0, in points")
    if options.metric != "accuracy" or options.factor or options.against:
        raise UsageError("--chance works on accuracy only, without --factor and --against; leave them out")
    first, second = options.chance
    records = read_all(paths, options.where)
    people = find_people([record for record in records if record.arch in (first, second)])
    per_person = PER_PERSON if options.per_person is None else options.per_person
    leads = resample_leads(records, first, second, people, per_person=per_person)
    if options.out:
        write_chance(leads, points, options.out)
    if options.json:
        print(json.dumps(leads_to_dict(leads, points)))
    else:
        for sentence in (write_sentence(leads, points), *leads.exclusions):
            print_prose(sentence)
    if options.out:
        say(f"chance: {options.out}")
    return DONE


def find_people(records: Sequence[TrialRecord]) -> dict[tuple[int, ...], np.ndarray]:
    """Return the person of each test image, from the records or else from the local faces.

    Raises:
        AbsentFacesError: the faces are not on this machine.
        UsageError: the local faces differ from those of the records.
    """
    import numpy as np

    from ffem_jax.config.compose import place_faces
    from ffem_jax.records.view import read_trial
    from ffem_jax.runs.counting import count_faces

    found: dict[tuple[int, ...], np.ndarray] = {}
    for record in records:
        images = tuple(record.test_images)
        if images in found or not images:
            continue
        if record.test_identities:
            found[images] = np.asarray(record.test_identities)
            continue
        trial = place_faces(read_trial(record.spec))
        counted = count_faces(trial.data, trial.protocol)
        if tuple(counted.test.tolist()) != images:
            raise UsageError(
                f"the faces of data={record.data} here differ from those of the records (other test images); set "
                "data.root or FFEM_LFW_ROOT to the faces used in training"
            )
        found[images] = counted.people
    return found
