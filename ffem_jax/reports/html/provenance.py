"""The provenance of a page: faces, protocol, versions, devices, time."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ffem_jax.records.record import TrialRecord

# Settings that are locations on a user's machine.
PRIVATE = ("root", "cache_dir")


def describe_provenance(records: Sequence[TrialRecord]) -> list[list[str]]:
    """Return (name, value) rows on the origin of the records; several values come with their numbers of trials."""
    ran = [record for record in records if record.status != "over_cap"]
    data, protocol = (records[0].view.get_written(group) for group in ("data", "protocol"))
    rows = [
        ["data set", _count(f"{r.data}{f' ({r.data_variant})' if r.data_variant else ''}" for r in records)],
        ["data settings", _list_settings(data, PRIVATE)],
        ["people, training images", _count(f"{r.people} people, {r.train_images:,} images" for r in ran)],
        ["test images", _count(f"{r.tested:,}" for r in ran if r.tested)],
        ["protocol", _list_settings(protocol, ("fold", "split_seed"))],
        ["validation", _count(_describe_validation(r) for r in ran if r.validation_accuracy)],
        ["fingerprint of the faces", _count(r.data_fingerprint for r in records if r.data_fingerprint)],
        ["recipe", _count(r.recipe for r in records)],
        ["teacher, trained on other data", _count(_describe_teacher(r.teacher) for r in ran if r.teacher)],
        ["seeds", ", ".join(str(seed) for seed in sorted({record.seed for record in records}))],
        ["device", _count(r.device for r in ran if r.device)],
        ["versions", _count(", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in ran if r.versions)],
        ["trained", _describe_days(ran)],
        ["time", describe_seconds(ran)],
    ]
    return [[name, value] for name, value in rows if value]


def _describe_teacher(about: dict[str, Any]) -> str:
    facts = [f"{name} {about[name]}" for name in ("source", "licence", "vectors") if about.get(name)]
    return ", ".join([str(about.get("name", "unnamed")), *facts])


def describe_seconds(records: Sequence[TrialRecord]) -> str:
    """Return the total time of the trained trials; seeds of one program share a folder, so their time counts once."""
    done = [record for record in records if record.wall_seconds is not None and record.status == "done"]
    trained = {record.trial_dir or record.trial_key: record for record in done}.values()
    if not trained:
        return ""
    wall = [record.wall_seconds or 0.0 for record in trained]
    compiling = sum(record.compile_seconds or 0.0 for record in trained)
    speeds = [record.train_images_per_second for record in trained if record.train_images_per_second]
    speed = f", {statistics.median(speeds):,.0f} training images per second" if speeds else ""
    return (
        f"{_say_time(sum(wall))} in all, {_say_time(compiling)} of it tracing and compiling; "
        f"{_say_time(statistics.median(wall))} per trial{speed} (medians)"
    )


def _say_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(values: Iterable[str]) -> str:
    """Return the values, most frequent first, with their numbers of trials if there are several."""
    counted = Counter(values).most_common()
    if len(counted) == 1:
        return counted[0][0]
    listed = "; ".join(f"{value} ({number} trials)" for value, number in counted[:6])
    return listed + (f"; {len(counted) - 6} more" if len(counted) > 6 else "")


def _list_settings(settings: dict[str, Any], left_out: Sequence[str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items() if name not in left_out)


def _describe_validation(record: TrialRecord) -> str:
    if record.validated:
        return f"{record.validated} images held out of training, never tested"
    return "the test images: tuning by these curves is tuning on the test set"


def _describe_days(records: Sequence[TrialRecord]) -> str:
    started = sorted(record.started_at for record in records if record.started_at)
    if not started:
        return ""
    first, last = started[0][:16].replace("T", " "), started[-1][:16].replace("T", " ")
    return f"{first} to {last} UTC (starts of trials)" if first != last else f"{first} UTC"
