"""Searches in which nothing is trained: a space of a few choices, candidates and records in microseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.search.candidates import Candidate
from ffem_jax.search.settings import SearchSettings
from ffem_jax.search.space import SearchSpace, read_space
from ffem_jax.search.storage import FileStudyLock, open_storage
from ffem_jax.search.study import Claim, SearchStudy

PARAMS = {"width": "range(1,9)", "depth": "range(1,9)", "kind": "none,eca,se", "placement": "first,last"}
WHEN = {"placement": {"kind": ["eca", "se"]}}
SPACE = read_space({"params": PARAMS, "when": WHEN})
CAP = 40.0
WORTH = {"none": 0.0, "eca": 0.05, "se": 0.02}


def make(point: Mapping[str, str]) -> Candidate:
    """A candidate known by its point; depth 8 cannot be built, `first` and `last` build the same with SE."""
    if point["depth"] == "8":
        return Candidate(point, None, None, excess=1.0, reason="8 is too deep")
    key = {name: value for name, value in point.items() if point["kind"] != "se" or name != "placement"}
    return Candidate(point, None, None, key=repr(sorted(key.items())))


def measure(candidate: Candidate) -> Candidate:
    """Width times depth, against CAP; MACs go by depth alone."""
    if candidate.reason:
        return candidate
    size = float(candidate.point["width"]) * float(candidate.point["depth"])
    excess = size / CAP - 1
    reason = "over the cap" if excess > 0 else ""
    return dataclasses.replace(
        candidate, costs={"bytes_float32": size, "macs": float(candidate.point["depth"])}, excess=excess, reason=reason
    )


def compute_accuracy(point: Mapping[str, str]) -> float:
    """Rises with width and depth, each less and less; attention helps."""
    width, depth = int(point["width"]), int(point["depth"])
    return 0.9 - 0.4 / width - 0.3 / depth + WORTH[point["kind"]] * (1 if point.get("placement") != "first" else 0.5)


def make_record(claim: Claim, status: str = "done") -> TrialRecord:
    """The record that training `claim` would leave."""
    record = TrialRecord(claim.candidate.key, {"point": dict(claim.candidate.point)}, 0, status)
    record.accuracy = compute_accuracy(claim.candidate.point) if status == "done" else None
    record.tested = 500
    record.error = "" if status == "done" else "FloatingPointError: loss is NaN"
    return record


def train_into(path: Path, claim: Claim) -> list[TrialRecord]:
    """As training does: its record appended to `path`, and returned."""
    record = make_record(claim)
    append_record(path, record)
    return [record]


def open_study(folder: Path, space: SearchSpace = SPACE, **settings: Any) -> SearchStudy:
    """A view of the study in `folder`: call it twice for two workers."""
    chosen = SearchSettings(**{"n_trials": 20, "sampler": "random", **settings})
    storage, lock = open_storage("", "made", folder)
    assert isinstance(lock, FileStudyLock)
    return SearchStudy(chosen, space, storage, lock, "made", make, measure)
