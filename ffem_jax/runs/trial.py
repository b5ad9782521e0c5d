"""One trial, or one network with several seeds, from spec to record: the part of a sweep that a launcher runs.

In order: the faces, the trial's key, a lock, the records (done already?), the size limit, training and evaluation
(`fitting`), the record. What goes wrong with the network ends as a record; what is wrong with the request is raised.

What happens to one trial must not depend on the launcher that started it: this module knows no Hydra, and `sweep` knows
no training.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ffem_jax import __version__
from ffem_jax.config.compose import place_faces
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.open_set import check_strangers
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.data.read_ahead import choose_loading
from ffem_jax.data.recorded import identify_faces
from ffem_jax.machine import hosts
from ffem_jax.records.record import TrialRecord, append_record, latest_records, read_records
from ffem_jax.runs.fitting import TrialInputs, embed, fill_record, fit
from ffem_jax.runs.progress import PRETRAINING_FOLDER, PRETRAINING_RECORDS
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import RunSpec, TrialSpec, to_plain, trial_key
from ffem_jax.teachers.teach import load_teaching

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

RECORDED_VERSIONS = ("jax", "flax", "optax", "numpy")


def run_trials(
    trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path, *, what: str = ""
) -> list[TrialRecord]:
    """Run `trial`, with each of run.seeds where there are any, and append a record for each to `records_path`.

    A seed that the records hold as done is not run again (unless run.retrain); its record is returned. A network
    over the cap is recorded so and not trained (unless run.train_over_cap). Training that raises, or whose loss
    stops being finite, is recorded as failed.

    With run.stop_epoch a trial is recorded as pruned where it stops; one recorded as done, or as pruned no earlier, is
    returned as it is. To go on, give the same `out_dir`: the checkpoint is there. Without it the trial starts anew.

    Where several processes train together (run.processes) each calls this. The first one alone reads and writes
    records and folders; all return the same records.

    Args:
        out_dir: keeps trial.json, the checkpoint and the trained weights.
        what: what to call the trial while another process trains it; empty names its network and seed.

    Returns:
        A record per seed: those found, then those made now.

    Raises:
        DataError, SpecError: the request cannot be met.
        HostError: another process of the trial failed, or is of another trial.
        OSError: a record cannot be written.
    """
    hosts.join(run.processes, run.process, run.coordinator, run.heartbeat_seconds)
    with hosts.end_together(), ExitStack() as locks:
        locks.enter_context(choose_loading(run.load, run.decode_processes))
        inputs = _load_inputs(trial, run, out_dir)
        blank, kept = _make_blank_records(inputs), []
        _check_the_same(run, blank)
        if hosts.is_first():
            for record in blank:
                _wait_for_lock(locks, records_path, record, what, run.progress)
            kept = _select_recorded(_read_existing(records_path), blank, run)
        ours = hosts.tell([record.trial_key for record in kept])
        missing = [record for record in blank if record.trial_key not in ours]
        if missing:
            if hosts.is_first():
                # Whatever else is to be trained in this folder keeps its checkpoint and its weights there too.
                out_dir.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(out_dir / ".trial.lock"))
            missing = _run(inputs, missing, records_path.parent / PRETRAINING_FOLDER)
            if hosts.is_first():
                for record in missing:
                    _append(records_path, record)
        return _share_records([*kept, *missing])


# What may differ between the processes of a trial: where each is, and what each shows.
_OWN_SETTINGS = ("process", "coordinator", "records", "progress", "cores")


def _check_the_same(run: RunSpec, blank: Sequence[TrialRecord]) -> None:
    """Raise HostError where the processes of a trial were given different trials, or other settings of the run."""
    settings = {f"run.{name}": value for name, value in to_plain(run).items() if name not in _OWN_SETTINGS}
    trials = [record.trial_key for record in blank]
    mine = {**settings, "trials (network, recipe, seed and faces)": trials, "versions": blank[0].versions}
    first, *others = hosts.gather(mine)
    for process, other in enumerate(others, 1):
        odd = [name for name, value in first.items() if other.get(name) != value]
        if odd:
            raise hosts.HostError(
                f"process {process} was started with other {', '.join(odd)} than process 0: {other[odd[0]]} and "
                f"{first[odd[0]]}; start the same command in each"
            )


def _share_records(records: list[TrialRecord]) -> list[TrialRecord]:
    """The first process's records, in all of them."""
    if hosts.count() == 1 or hosts.has_failed():
        return records
    lines = hosts.tell([record.to_json() for record in records])
    return records if hosts.is_first() else [TrialRecord.from_json(line) for line in lines]


def _select_recorded(recorded: Sequence[TrialRecord], blank: Sequence[TrialRecord], run: RunSpec) -> list[TrialRecord]:
    """The records among `recorded` that answer for those of `blank`, so that these seeds need not be run."""
    if run.retrain:
        return []
    known = {record.trial_key: record for record in recorded}
    found = [known[record.trial_key] for record in blank if record.trial_key in known]
    kept = [record for record in found if _reaches(record, run.stop_epoch)]
    if len(kept) == len(blank):
        return kept
    # The seeds that are not done go on together: their checkpoint is of one program.
    return [record for record in kept if record.status == "done"]


def compute_key(trial: TrialSpec) -> str:
    """The key that `trial` is recorded under: of its specs, its faces and those that it was pretrained on.

    Raises DataError for faces that cannot be had.
    """
    return _compute_key(_load_inputs(trial, RunSpec(), Path()))


def _load_inputs(trial: TrialSpec, run: RunSpec, out_dir: Path) -> TrialInputs:
    faces, split = load_split(trial.data, trial.protocol)
    return TrialInputs(trial, run, faces, split, out_dir, load_teaching(trial, faces, split))


def _compute_key(inputs: TrialInputs) -> str:
    first = inputs.trial.pretraining
    first_fingerprint = identify_faces(*load_split(first.data, first.protocol)) if first else ""
    taught = inputs.teaching.fingerprint if inputs.teaching else ""
    return trial_key(inputs.trial, identify_faces(inputs.faces, inputs.split), first_fingerprint, taught)


def _reaches(record: TrialRecord, stop_epoch: int) -> bool:
    """Whether the record is of as much training as is asked for; stop_epoch 0 asks for all."""
    return record.status == "done" or (record.status == "pruned" and 0 < stop_epoch <= record.epochs)


def discard_checkpoint(out_dir: Path) -> None:
    """Delete the checkpoint in a trial's folder, for a trial that nobody will go on with; without one, do nothing.

    A pruned trial's record stays and, asked for again, the trial starts anew. Not for a trial that is being trained.
    """
    # Under another name first: half a checkpoint that a killed process left would be taken for a whole one.
    leaving = out_dir / "checkpoint.discarded"
    shutil.rmtree(leaving, ignore_errors=True)
    try:
        (out_dir / "checkpoint").replace(leaving)
    except FileNotFoundError:
        return
    shutil.rmtree(leaving)


def record_failure(trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path, error: str) -> list[TrialRecord]:
    """Append a `failed` record for each seed that has none yet: of a trial that never came to write its own.

    Returns a record for each seed, the one that stood or the new one. Raises as `run_trials` does.
    """
    recorded = {record.trial_key: record for record in _read_existing(records_path)}
    records = []
    with choose_loading(run.load, run.decode_processes):
        blanks = _make_blank_records(_load_inputs(trial, run, out_dir))
    for blank in blanks:
        record = recorded.get(blank.trial_key)
        if record is None:
            record = dataclasses.replace(blank, error=error)
            _append(records_path, record)
        records.append(record)
    return records


def _wait_for_lock(locks: ExitStack, records_path: Path, record: TrialRecord, what: str, progress: bool) -> None:
    """Hold the lock of the trial's key; while another process does, say so and wait."""
    # Held by the operating system, so a killed process lets go of it.
    lock = FileLock(records_path.parent / ".locks" / f"{record.trial_key}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        locks.enter_context(lock.acquire(timeout=0.5))
    except Timeout:
        from ffem_jax.training.progress_bar import say, show_activity

        what = what or f"{record.arch} seed {record.seed}"
        say(f"another process is training {what} ({record.trial_key}); waiting for its record")
        with show_activity(f"waiting for {what}", enabled=progress):
            locks.enter_context(lock)


def _read_existing(records_path: Path) -> list[TrialRecord]:
    return latest_records(read_records(records_path)) if records_path.exists() else []


def _make_blank_records(inputs: TrialInputs) -> list[TrialRecord]:
    """A record for each seed, all that is known before training filled in: failed, until something better comes."""
    trial, run, faces, split = inputs.trial, inputs.run, inputs.faces, inputs.split
    first = trial.pretraining
    pretraining_fingerprint = ""
    if first:
        known, seen = load_split(first.data, first.protocol)
        pretraining_fingerprint = identify_faces(known, seen)
        if split.probes is not None:
            check_strangers(faces, split.test, known, seen.train, f"pretrain.data={first.data.name}")
    fingerprint, identities = identify_faces(faces, split), set(faces.labels[split.train].tolist())
    taught = inputs.teaching.fingerprint if inputs.teaching else ""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        TrialRecord(
            trial_key=trial_key(one, fingerprint, pretraining_fingerprint, taught),
            spec=to_plain(place_faces(one)),
            seed=one.seed,
            status="failed",
            arch=trial.arch.name,
            data=trial.data.name,
            data_variant=faces.variant,
            data_fingerprint=faces.fingerprint,
            pictures_fingerprint=faces.pictures_fingerprint,
            pretraining_fingerprint=pretraining_fingerprint,
            teaching_fingerprint=taught,
            teacher=dict(inputs.teaching.about) if inputs.teaching else {},
            synthetic=faces.synthetic,
            protocol=trial.protocol.name,
            recipe=trial.recipe.name,
            resolution=trial.data.resolution,
            people=len(identities),
            train_images=len(split.train),
            tested=_count_tested(trial, split),
            validated=len(split.validation),
            versions={"ffem_jax": __version__, **{name: version(name) for name in RECORDED_VERSIONS}},
            started_at=started_at,
            trial_dir=inputs.out_dir.name,
        )
        for one in trial.with_seeds(run.seeds)
    ]


def _count_tested(trial: TrialSpec, split: Split) -> int:
    """The images that are right or wrong, the pairs of the tested fold, or those of all sets of `bins`."""
    if split.bins:
        return sum(len(one.same) for one in split.bins.sets)
    return len(split.asked) if split.pairs is None else int((split.pairs.fold == trial.protocol.fold).sum())


def _run(inputs: TrialInputs, blank: Sequence[TrialRecord], pretraining_dir: Path) -> list[TrialRecord]:
    """`blank`, one record per seed, with the cost and then the refusal, or what training gave, or why it failed."""
    from ffem_jax.cost.cost import compute_cost
    from ffem_jax.machine.devices import use_cpu_cores, use_float32

    started = time.perf_counter()
    trial, run, records = inputs.trial, inputs.run, list(blank)
    try:
        use_cpu_cores(run.cores)
        enable_compilation_cache(find_cache_folder(trial.data) / "compiled")
        with use_float32():
            cost = compute_cost(trial.arch, trial.data.resolution)
        known: dict[str, Any] = {**cost.to_dict(), "cap_mb": run.cap_mb, "cap_precision": run.cap_precision}
        records = [dataclasses.replace(record, **known) for record in records]
        _, excess = run.measure_excess(cost.get_bytes(run.cap_precision), cost.macs)
        if excess and not run.train_over_cap:
            records = [dataclasses.replace(record, status="over_cap", error=excess) for record in records]
        else:
            with use_float32():
                records = _train(inputs, records, pretraining_dir)
    except SpecError:
        raise
    except Exception as error:
        described = hosts.explain_failure(error)
        records = [dataclasses.replace(record, status="failed", error=described) for record in records]
        # The console gets one line, from the record; the traceback is for the trial's ffem.log.
        log.info("%s seed %s failed", trial.arch.name, trial.seed, exc_info=True)
        if not hosts.is_first():  # which records the failure, as far as it hears of it
            raise
    seconds = round(time.perf_counter() - started, 3)
    return [dataclasses.replace(record, wall_seconds=seconds) for record in records]


def _train(inputs: TrialInputs, records: Sequence[TrialRecord], pretraining_dir: Path) -> list[TrialRecord]:
    """Fit, embed, fill the records."""
    from ffem_jax.training.loggers import open_logger
    from ffem_jax.training.progress_bar import say

    run = inputs.run
    name = run.logger if hosts.is_first() else "none"
    with open_logger(name, records, inputs.out_dir, say, retrain=run.retrain) as logger:
        trainer, training = fit(
            inputs,
            records,
            pretrain=lambda: _pretrain(inputs, pretraining_dir, records[0].pretraining_fingerprint),
            on_epoch=logger.log_epoch,
        )
        embedded = embed(trainer, training, inputs.split)
        if not hosts.is_first():
            return list(records)  # the first process says what they are
        filled = [
            fill_record(record, place, inputs, trainer, training, embedded) for place, record in enumerate(records)
        ]
        logger.records = filled
    return filled


def _pretrain(inputs: TrialInputs, folder: Path, fingerprint: str) -> dict[str, np.ndarray]:
    """The weights that the trial starts from: those of its pretraining, which is run in `folder` unless it was.

    The pretraining is a trial with a lock and a record of its own; while another process trains it, this one waits.

    Args:
        fingerprint: of the pretraining's faces, as the keys of the trials that start from it have them.

    Raises:
        PretrainingError: it fails, or its faces are others by now.
    """
    from ffem_jax.training.pretraining import PretrainingError, load_pretrained

    first = inputs.trial.pretraining
    assert first is not None
    if identify_faces(*load_split(first.data, first.protocol)) != fingerprint:
        raise PretrainingError(f"the faces of data={first.data.name} changed since this trial began; start it again")
    key = trial_key(first, fingerprint)
    what = f"the pretraining of {first.arch.name} on {first.data.name}"
    # A record whose checkpoint is gone is no pretraining: it is then trained again.
    for retrain in (False, True):
        alone = dataclasses.replace(inputs.run, seeds=(), stop_epoch=0, checkpoint=True, retrain=retrain)
        (record,) = run_trials(first, alone, folder / key, folder / PRETRAINING_RECORDS, what=what)
        if record.status != "done":
            raise PretrainingError(f"pretraining on {first.data.name} ({key}) failed: {record.error or record.status}")
        found = load_pretrained(folder / key / "checkpoint", key, first) if hosts.is_first() else None
        if hosts.tell(found is not None):
            return found or {}
    raise PretrainingError(f"pretraining on {first.data.name} ({key}) left no checkpoint in {folder / key}")


def _append(records_path: Path, record: TrialRecord) -> None:
    try:
        append_record(records_path, record)
    except OSError as error:
        kept = " The checkpoint is kept: the same command records it without training again." if record.epochs else ""
        raise OSError(
            error.errno,
            f"the record of {record.arch} seed {record.seed} could not be written ({error.strerror}).{kept}",
        ) from error


def enable_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in `folder`; the environment's JAX_COMPILATION_CACHE_DIR chooses another, empty none."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
