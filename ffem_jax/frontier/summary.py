"""From trials to networks: all seeds and folds of one network become one point with one interval."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ffem_jax.arch import ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.frontier.labels import describe_placement, make_labels
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.records import TrialRecord, latest_records

METRICS = {"accuracy": "correct", "accuracy_gallery": "correct_gallery"}
# Protocols whose trials test a part each: a run is all of them.
FOLDED = ("kfold", "view2")


class FrontierError(ValueError):
    """Records that no frontier and no comparison can be made of. The message is one line and says what to do."""


@dataclass(frozen=True)
class NetworkSummary:
    """One network at one resolution under one recipe, over all its seeds and folds. Rates are in 0 to 1.

    label: what tells it apart from the others of the same call. attention: its kind; placement: empty where none.
    status: `done` (accuracy and interval are known), `pruned` (every training stopped early, so none is known),
        `over_cap` (refused for its size, never trained) or `failed`.
    accuracy: the mean over seeds, pooled over folds by their number of images.
    accuracy_low, accuracy_high: its 95 % Wilson interval with n = `tested`, the number of distinct test images.
        Seeds see the same images, so counting an image once a seed would make the interval too narrow; what
        another seed would change is `seed_deviation`: the sample standard deviation over runs, a run being a seed
        on its split; None for a single run, or where a run lacks a fold.
    latency_ms_wasm: the median of its trials' measurements; None where none was measured.
    seeds, folds: those that are done. pruned_trials: those stopped early. failed_trials: those that failed. errors:
        their messages.
    """

    label: str
    arch: str
    attention: str
    placement: str
    resolution: int
    recipe: str
    status: str
    trials: int = 0
    pruned_trials: int = 0
    failed_trials: int = 0
    seeds: tuple[int, ...] = ()
    folds: tuple[int, ...] = ()
    complete: bool = True
    params: int | None = None
    macs: int | None = None
    bytes_float32: int | None = None
    bytes_float16: int | None = None
    bytes_int8: int | None = None
    peak_activation_bytes: int | None = None
    latency_ms_wasm: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    seed_deviation: float | None = None
    tested: int | None = None
    trial_keys: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def summarize_records(records: Iterable[TrialRecord], metric: str = "accuracy") -> list[NetworkSummary]:
    """One summary a network, in order of first appearance; a trial recorded twice counts once.

    metric: `accuracy` (the classifier) or `accuracy_gallery` (nearest gallery embedding, Eq. 6); it becomes the
    summaries' `accuracy`.

    Raises FrontierError for an unknown metric, and for records of several data sets or protocols, or of real and
    synthetic faces: their accuracies cannot share an axis.
    """
    if metric not in METRICS:
        raise FrontierError(f"metric={metric!r} is not known; choose one of: {', '.join(METRICS)}")
    records = latest_records(records)
    check_comparable(records)
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        groups[identify_network(record)].append(record)
    labels = make_labels([group[0].spec for group in groups.values()])
    return [_summarize(group, label, metric) for group, label in zip(groups.values(), labels, strict=True)]


def check_comparable(records: Sequence[TrialRecord], *, varying: str = "") -> None:
    """Raise FrontierError unless all records are of one data set and one protocol.

    The resolution may differ, and so may the data setting `varying` (`data.crop`). A folder is known by its pixels,
    since its path says nothing.
    """
    faces: Counter[str] = Counter()
    protocols: Counter[str] = Counter()
    settings: dict[str, set[str]] = defaultdict(set)
    folders: dict[int, set[str]] = defaultdict(set)
    variants = {record.data_variant for record in records if record.data_variant}
    for record in records:
        data, protocol = record.spec.get("data", {}), record.spec.get("protocol", {})
        # A trial that never loaded its faces (over the cap, failed) does not know their variant.
        variant = record.data_variant or (next(iter(variants)) if len(variants) == 1 else "")
        name = record.data or str(data.get("name", "?"))
        synthetic = record.synthetic and name != "synthetic"
        faces[name + (f" ({variant})" if variant else "") + (" [synthetic]" if synthetic else "")] += 1
        size = "folds" if protocol.get("name") in FOLDED else "test_per_person"
        protocols[f"{protocol.get('name', '?')} with {size}={protocol.get(size, '?')}"] += 1
        # Fewer images train where some are held out.
        settings["protocol.validation_per_person"].add(json.dumps(protocol.get("validation_per_person", 0)))
        for field, value in data.items():
            if field not in ("name", "root", "cache_dir", "resolution") and f"data.{field}" != varying:
                settings[f"data.{field}"].add(json.dumps(value))
        if name == "folder" and record.data_fingerprint and varying != "data.crop":
            folders[record.resolution].add(record.data_fingerprint)

    for what, counts in (("data sets", faces), ("protocols", protocols)):
        if len(counts) > 1:
            names = ", ".join(f"{name} ({count} trials)" for name, count in counts.items())
            raise FrontierError(f"the records mix {what}: {names}; take each alone")
    mixed = [f"{field} ({', '.join(sorted(values))})" for field, values in settings.items() if len(values) > 1]
    if mixed:
        raise FrontierError(f"the records mix settings of {next(iter(faces))}: {', '.join(mixed)}; take each alone")
    for resolution, fingerprints in folders.items():
        if len(fingerprints) > 1:
            raise FrontierError(
                f"the records mix {len(fingerprints)} folders of faces at {resolution} px; take each alone"
            )


def identify_network(record: TrialRecord) -> str:
    """What makes two trials the same network in the same setting, but for seed and fold."""
    spec = record.spec
    recipe = {k: v for k, v in spec.get("recipe", {}).items() if k != "name"}
    arch = spec.get("arch", {})
    try:
        network: Any = dataclasses.asdict(resolve_network(read_arch(arch)))
    except (TypeError, ValueError, AttributeError):
        # Written by a package with other fields: the spec as it stands is the next best name.
        network = {k: v for k, v in arch.items() if k != "name"}
        if arch.get("attention", {}).get("kind", "none") == "none":
            network["attention"] = "none"
    resolution = spec.get("data", {}).get("resolution", record.resolution)
    return json.dumps([network, resolution, recipe, spec.get("pretrain")], sort_keys=True)


def read_arch(arch: dict[str, Any]) -> ArchSpec:
    """A network's spec from its nested dicts. Raises SpecError, TypeError or AttributeError where they are none."""
    stages = tuple(StageSpec(**stage) for stage in arch["stages"]) if "stages" in arch else ArchSpec().stages
    attention = AttentionSpec(**arch.get("attention", {}))
    return ArchSpec(**{**arch, "stages": stages, "attention": attention})


def _summarize(group: Sequence[TrialRecord], label: str, metric: str) -> NetworkSummary:
    done = [r for r in group if r.status == "done" and getattr(r, metric) is not None and r.tested]
    statuses = Counter(r.status for r in group)
    failed = [r for r in group if r.status == "failed"]
    sized = next((r for r in (*done, *group) if r.params is not None), group[0])
    attention = sized.spec.get("arch", {}).get("attention", {})
    summary = NetworkSummary(
        label=label,
        arch=sized.arch or str(sized.spec.get("arch", {}).get("name", "")),
        attention=attention.get("kind", "none"),
        placement=describe_placement(attention),
        resolution=int(sized.spec.get("data", {}).get("resolution", sized.resolution)),
        recipe=sized.recipe or str(sized.spec.get("recipe", {}).get("name", "")),
        status="done" if done else next((name for name in ("pruned", "over_cap") if statuses[name]), "failed"),
        trials=len(done),
        pruned_trials=statuses["pruned"],
        failed_trials=len(failed),
        params=sized.params,
        macs=sized.macs,
        bytes_float32=sized.bytes_float32,
        bytes_float16=sized.bytes_float16,
        bytes_int8=sized.bytes_int8,
        peak_activation_bytes=sized.peak_activation_bytes,
        latency_ms_wasm=_find_latency(group),
        trial_keys=tuple(r.trial_key for r in group),
        errors=tuple(dict.fromkeys(r.error or "no message" for r in failed)),
    )
    if not done:
        no_number = [r for r in group if r.status == "done"]
        errors = (*summary.errors, f"done, but the record has no {metric}") if no_number else summary.errors
        return dataclasses.replace(summary, failed_trials=len(failed) + len(no_number), errors=errors)
    return dataclasses.replace(summary, **_pool(done, metric))


def _find_latency(group: Sequence[TrialRecord]) -> float | None:
    measured = [record.latency_ms_wasm for record in group if record.latency_ms_wasm is not None]
    return statistics.median(measured) if measured else None


def _pool(done: Sequence[TrialRecord], metric: str) -> dict[str, Any]:
    """Accuracy and interval over seeds and folds, as NetworkSummary's fields."""
    cells: dict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    for record in done:
        counted = getattr(record, METRICS[metric])
        correct = counted if counted is not None else round(getattr(record, metric) * record.tested)
        protocol = record.spec.get("protocol", {})
        fold = protocol.get("fold", 0) if protocol.get("name") in FOLDED else 0
        cells[protocol.get("split_seed", 0), fold][record.seed] = (correct, record.tested or 0)

    images, right = 0, 0.0
    distinct: dict[int, int] = defaultdict(int)
    for (split, _), cell in cells.items():
        cell_images = max(count for _, count in cell.values())
        images += cell_images
        right += cell_images * sum(c for c, _ in cell.values()) / sum(n for _, n in cell.values())
        # Another split draws from the same faces: its images are not counted as new ones.
        distinct[split] += cell_images
    accuracy, tested = right / images, max(distinct.values())
    low, high = compute_wilson_interval(accuracy * tested, tested)

    protocol = done[0].spec.get("protocol", {})
    wanted = protocol.get("folds", 1) if protocol.get("name") in FOLDED else 1
    seeds = tuple(sorted({record.seed for record in done}))
    folds = tuple(sorted({fold for _, fold in cells}))
    # A run is a seed on a split, all folds of it; a sweep may give each seed a split of its own.
    runs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for (split, _), cell in cells.items():
        for seed, counts in cell.items():
            runs[seed, split].append(counts)
    complete = all(len(run) >= wanted for run in runs.values())
    by_run = [sum(c for c, _ in run) / sum(n for _, n in run) for run in runs.values()] if complete else []
    return {
        "seeds": seeds,
        "folds": folds,
        "complete": complete,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "seed_deviation": statistics.stdev(by_run) if len(by_run) > 1 else None,
        "tested": tested,
    }
