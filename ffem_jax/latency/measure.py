"""The trials of records files: each network timed once, and its milliseconds appended to the records of its trials."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffem_jax.analysis.comparability import identify_network
from ffem_jax.analysis.summary import label_networks
from ffem_jax.export import load_format
from ffem_jax.export.tfjs import MODEL_FILE
from ffem_jax.latency import LatencyError
from ffem_jax.latency.turns import Busy, TimedModel, Timing, start_node, time_in_turn
from ffem_jax.machine.processor import find_processor
from ffem_jax.records.record import TrialRecord, append_record, latest_records, read_records
from ffem_jax.specs.architecture import ArchSpec, NetworkSpec

ROUNDS = 30


@dataclass(frozen=True)
class MeasuredFile:
    """What `measure_records` did to one file: the trials that got a number, and those that had one already."""

    path: Path
    updated: int
    kept: int


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network at one resolution, and its milliseconds a call. name: what tells it apart from the others."""

    name: str
    resolution: int
    timing: Timing


def write_untrained(arch: ArchSpec | NetworkSpec, resolution: int, formats: Mapping[str, tuple[str, str]]) -> None:
    """Write the network to each new folder in `formats`, in the format and the dtype that stand beside it.

    Its weights are those before training: how long a call takes does not depend on them.
    """
    from flax import nnx

    from ffem_jax.export.fold import fold_network
    from ffem_jax.models import build_model

    model = build_model(arch, resolution, rngs=nnx.Rngs(0))
    model.eval()
    layers = fold_network(model, resolution)
    for folder, (name, dtype) in formats.items():
        Path(folder).mkdir(parents=True)
        load_format(name, dtype).write(layers, dtype, Path(folder))


def measure_records(
    paths: Sequence[Path],
    *,
    rounds: int = ROUNDS,
    again: bool = False,
    keys: Collection[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[list[MeasuredFile], list[MeasuredNetwork], Busy]:
    """Time the networks of the done trials in the records files `paths` and append each trial's record with its
    `latency_ms_wasm`: what was done to each file, the networks, and what others used of the machine meanwhile.

    A network is timed once, however many trials it has; all are called in turn. Trials that have a latency keep it
    unless `again`. keys: of the trials whose networks are meant; None means all. Nothing that stands in a file is
    changed or removed. tell: called with lines of progress.

    Raises:
        LatencyError: Node or TensorFlow.js is missing, or a network cannot be exported.
        OSError: a file cannot be written.
    """
    wanted: dict[tuple[NetworkSpec, int], None] = {}
    for path in paths:
        for record in _select(path, again):
            if keys is not None and record.trial_key not in keys:
                continue
            wanted[identify(record)] = None
    if not wanted:
        return [MeasuredFile(path, 0, len(_select(path, True))) for path in paths], [], Busy(0.0, 0.0)
    tell(f"timing {len(wanted)} network{'' if len(wanted) == 1 else 's'}, {rounds} calls each, in turn")
    with tempfile.TemporaryDirectory() as scratch, start_node() as runtime:
        names = {}
        for index, (network, resolution) in enumerate(wanted):
            names[network, resolution] = name = f"network{index}"
            folder = Path(scratch) / name
            write_untrained(network, resolution, {str(folder): ("tfjs", "float32")})
            runtime.load(TimedModel(name, folder / MODEL_FILE, resolution))
        timings, busy = time_in_turn(runtime, list(names.values()), rounds)
        setting = {
            "runtime": runtime.describe(),
            "processor": find_processor(),
            "busy_cores": round(busy.mean, 3),
            "busy_cores_peak": round(busy.peak, 3),
        }
    found = {key: timings[name] for key, name in names.items()}
    files = [_append(path, found, setting, again) for path in paths]
    labels = _label(latest_records(record for path in paths for record in read_records(path)))
    return files, [MeasuredNetwork(labels[key], key[1], found[key]) for key in wanted], busy


def _label(records: Iterable[TrialRecord]) -> dict[tuple[NetworkSpec, int], str]:
    """What each network is called in every other command; where several are built alike, the first and how many."""
    records = list(records)
    labels = label_networks(records)
    called: dict[tuple[NetworkSpec, int], list[str]] = {}
    for record in records:
        if record.status == "done":
            names = called.setdefault(identify(record), [])
            label = labels[identify_network(record)]
            if label not in names:
                names.append(label)
    return {
        key: f"{names[0]} (and {len(names) - 1} more that are built alike)" if len(names) > 1 else names[0]
        for key, names in called.items()
    }


def identify(record: TrialRecord) -> tuple[NetworkSpec, int]:
    """The network of a record as it is built, and the pixels per side that it sees. Raises LatencyError."""
    try:
        return record.view.network, record.pixels
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LatencyError(f"trial {record.trial_key} is of another version of this package: {error}") from error


def _select(path: Path, again: bool) -> list[TrialRecord]:
    """The done trials in `path`, those that have a latency only if `again`."""
    done = [record for record in latest_records(read_records(path)) if record.status == "done"]
    return [record for record in done if again or record.latency_ms_wasm is None]


def _append(
    path: Path, found: dict[tuple[NetworkSpec, int], Timing], setting: dict[str, Any], again: bool
) -> MeasuredFile:
    # Read again: a trial may have been trained anew while its network was timed, and its new record is the one to keep.
    records = _select(path, True)
    chosen = [record for record in records if again or record.latency_ms_wasm is None]
    updated = 0
    for record in chosen:
        timing = found.get(identify(record))
        if timing is not None:
            append_record(path, _add_latency(record, timing, setting))
            updated += 1
    return MeasuredFile(path, updated, len(records) - updated)


def _add_latency(record: TrialRecord, timing: Timing, setting: dict[str, Any]) -> TrialRecord:
    first, third = (round(value, 4) for value in timing.quartiles)
    spread = {"quartiles_ms": [first, third], "calls": len(timing.milliseconds)}
    return dataclasses.replace(record, latency_ms_wasm=round(timing.median, 4), latency_wasm={**spread, **setting})


def describe_networks(networks: Iterable[MeasuredNetwork]) -> list[str]:
    """A line a network: median and quartiles."""
    return [
        f"{network.name}, {network.resolution} pixels: {network.timing.median:.2f} ms "
        f"({network.timing.quartiles[0]:.2f} to {network.timing.quartiles[1]:.2f})"
        for network in networks
    ]
