"""One trial, or one network with several seeds, from spec to record: the part of a sweep that a launcher runs.

In order: the faces, the trial's key, a lock, the records (done already?), the size limit, training, evaluation, the
record. Whatever goes wrong with the network ends as a record; whatever is wrong with the request is raised.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ffem_jax import __version__
from ffem_jax.arch import SpecError, resolve_network
from ffem_jax.config import place_faces
from ffem_jax.data import Faces
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.data.recorded import KnownFaces, describe_faces, identify_faces
from ffem_jax.processor import find_processor
from ffem_jax.records import TrialRecord, append_record, latest_records, read_records
from ffem_jax.spec import RunSpec, TrialSpec, to_plain, trial_key

if TYPE_CHECKING:
    from ffem_jax.loggers import TrialLogger

log = logging.getLogger(__name__)

RECORDED_VERSIONS = ("jax", "flax", "optax", "numpy")


def run_trials(trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path) -> list[TrialRecord]:
    """Run `trial`, with each of run.seeds where there are any, and append a record for each to `records_path`.

    A seed that the records hold as done is not run again (unless run.retrain); its record is returned. A network
    over the cap is recorded so and not trained (unless run.train_over_cap). Training that raises, or whose loss
    stops being finite, is recorded as failed. `out_dir` keeps trial.json, the checkpoint and the trained
    weights.

    With run.stop_epoch a trial is recorded as pruned where it stops; one recorded as done, or as pruned no earlier, is
    returned as it is. To go on, give the same `out_dir`: the checkpoint is there. Without it the trial starts anew.

    Raises DataError or SpecError for a request that cannot be met, and OSError where a record cannot be written.
    """
    faces, split = load_split(trial.data, trial.protocol)
    blank = _make_records(trial, run, faces, split, out_dir)
    with ExitStack() as locks:
        for record in blank:
            _wait_for_lock(locks, records_path, record)
        recorded = {record.trial_key: record for record in _read_existing(records_path)}
        found = [recorded.get(record.trial_key) for record in blank]
        kept = [] if run.retrain else [record for record in found if record and _reaches(record, run.stop_epoch)]
        if len(kept) < len(found):
            # The seeds that are not done go on together: their checkpoint is of one program.
            kept = [record for record in kept if record.status == "done"]
        ours = {record.trial_key for record in kept}
        missing = [record for record in blank if record.trial_key not in ours]
        if missing:
            # Whatever else is to be trained in this folder keeps its checkpoint and its weights there too.
            out_dir.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(out_dir / ".trial.lock"))
            _run(trial, run, missing, faces, split, out_dir, records_path.parent / "pretraining")
            for record in missing:
                _append(records_path, record)
        return [*kept, *missing]


def compute_key(trial: TrialSpec) -> str:
    """The key that `trial` is recorded under: of its specs, its faces and those that it was pretrained on.

    Raises DataError for faces that cannot be had.
    """
    stages = (trial, trial.pretraining)
    return trial_key(trial, *(identify_faces(*load_split(one.data, one.protocol)) for one in stages if one))


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
    for blank in _make_records(trial, run, *load_split(trial.data, trial.protocol), out_dir):
        record = recorded.get(blank.trial_key)
        if record is None:
            record = dataclasses.replace(blank, error=error)
            _append(records_path, record)
        records.append(record)
    return records


def _wait_for_lock(locks: ExitStack, records_path: Path, record: TrialRecord) -> None:
    # Held by the operating system, so a killed process lets go of it.
    lock = FileLock(records_path.parent / ".locks" / f"{record.trial_key}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        locks.enter_context(lock.acquire(timeout=0.5))
    except Timeout:
        from ffem_jax.training_bar import say

        say(
            f"another process is training {record.arch} seed {record.seed} ({record.trial_key}); waiting for its record"
        )
        locks.enter_context(lock)


def _read_existing(records_path: Path) -> list[TrialRecord]:
    return latest_records(read_records(records_path)) if records_path.exists() else []


def _make_records(trial: TrialSpec, run: RunSpec, faces: Faces, split: Split, out_dir: Path) -> list[TrialRecord]:
    """A record for each seed, all that is known before training filled in: failed, until something better comes."""
    first = trial.pretraining
    first_fingerprint = identify_faces(*load_split(first.data, first.protocol)) if first else ""
    return [_make_record(one, faces, split, first_fingerprint, out_dir) for one in trial.with_seeds(run.seeds)]


def _make_record(
    trial: TrialSpec, faces: Faces, split: Split, pretraining_fingerprint: str, out_dir: Path
) -> TrialRecord:
    return TrialRecord(
        trial_key=trial_key(trial, identify_faces(faces, split), pretraining_fingerprint),
        spec=to_plain(place_faces(trial)),
        seed=trial.seed,
        status="failed",
        arch=trial.arch.name,
        data=trial.data.name,
        data_variant=faces.variant,
        data_fingerprint=faces.fingerprint,
        pictures_fingerprint=faces.pictures_fingerprint,
        pretraining_fingerprint=pretraining_fingerprint,
        synthetic=faces.synthetic,
        protocol=trial.protocol.name,
        recipe=trial.recipe.name,
        resolution=trial.data.resolution,
        people=len(set(faces.labels[split.train].tolist())),
        train_images=len(split.train),
        tested=_count_tested(trial, split),
        validated=len(split.validation),
        versions={"ffem_jax": __version__, **{name: version(name) for name in RECORDED_VERSIONS}},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trial_dir=out_dir.name,
    )


def _count_tested(trial: TrialSpec, split: Split) -> int:
    """Test images, or the pairs of the tested fold."""
    return len(split.test) if split.pairs is None else int((split.pairs.fold == trial.protocol.fold).sum())


def _run(
    trial: TrialSpec,
    run: RunSpec,
    records: list[TrialRecord],
    faces: Faces,
    split: Split,
    out_dir: Path,
    pretraining_dir: Path,
) -> None:
    """Fill in `records`, one a seed: the cost and the refusal, or what training gave, or why it failed."""
    from ffem_jax.cost import compute_cost
    from ffem_jax.devices import use_cpu_cores, use_float32
    from ffem_jax.loggers import open_logger
    from ffem_jax.training_bar import say

    started = time.perf_counter()
    try:
        use_cpu_cores(run.cores)
        enable_compilation_cache(find_cache_folder(trial.data) / "compiled")
        with use_float32():
            cost = compute_cost(trial.arch, trial.data.resolution)
        for record in records:
            for name, value in cost.to_dict().items():
                setattr(record, name, value)
        _, over = run.measure_excess(cost.get_bytes(run.cap_precision), cost.macs)
        if over and not run.train_over_cap:
            for record in records:
                record.status, record.error = "over_cap", over
        else:
            with use_float32(), open_logger(run.logger, records, out_dir, say, retrain=run.retrain) as logger:
                _train(trial, run, records, faces, split, out_dir, pretraining_dir, logger)
    except SpecError:
        raise
    except Exception as error:
        for record in records:
            record.status, record.error = "failed", describe_error(error)
        # The console gets one line, from the record; the traceback is for the trial's ffem.log.
        log.info("%s seed %s failed", trial.arch.name, trial.seed, exc_info=True)
    for record in records:
        record.wall_seconds = round(time.perf_counter() - started, 3)


def _pretrain(trial: TrialSpec, run: RunSpec, folder: Path, fingerprint: str) -> dict[str, Any]:
    """The weights of the trial that `trial` starts from, which is run in `folder` unless it was; under its own lock.

    fingerprint: of its faces, as the keys of the trials that start from it have them. Raises PretrainingError where it
    fails, or its faces are others by now.
    """
    from ffem_jax.pretraining import PretrainingError, load_pretrained

    if identify_faces(*load_split(trial.data, trial.protocol)) != fingerprint:
        raise PretrainingError(f"the faces of data={trial.data.name} changed since this trial began; start it again")
    key = trial_key(trial, fingerprint)
    # A record whose checkpoint is gone is no pretraining: it is then trained again.
    for retrain in (False, True):
        alone = dataclasses.replace(run, seeds=(), stop_epoch=0, checkpoint=True, retrain=retrain)
        (record,) = run_trials(trial, alone, folder / key, folder / "pretraining.jsonl")
        if record.status != "done":
            raise PretrainingError(f"pretraining on {trial.data.name} ({key}) failed: {record.error or record.status}")
        if (pretrained := load_pretrained(folder / key / "checkpoint", key, trial)) is not None:
            return pretrained
    raise PretrainingError(f"pretraining on {trial.data.name} ({key}) left no checkpoint in {folder / key}")


def _train(
    trial: TrialSpec,
    run: RunSpec,
    records: list[TrialRecord],
    faces: Faces,
    split: Split,
    out_dir: Path,
    pretraining_dir: Path,
    logger: TrialLogger,
) -> None:
    import jax
    import numpy as np

    from ffem_jax.checkpoint import TrialCheckpoint
    from ffem_jax.evaluate import compute_metrics, compute_pair_metrics
    from ffem_jax.metrics.duplicates import find_duplicates
    from ffem_jax.train import History, Trainer, TrainState
    from ffem_jax.training_bar import TrainingBar
    from ffem_jax.weights import save_weights

    specs = {"keys": [record.trial_key for record in records], "specs": [record.spec for record in records]}
    (out_dir / "trial.json").write_text(json.dumps(specs, indent=1) + "\n")
    network = resolve_network(trial.arch)
    seeds = [record.seed for record in records]
    # Where nothing is held out of training, the test images are looked at after each epoch; view2 has no such number,
    # since the classifier knows nobody who is tested.
    validation = split.validation if len(split.validation) or split.pairs else split.test
    trainer = Trainer(network, trial.recipe, seeds, faces.images, faces.labels, split.train, validation)
    with ExitStack() as stack:
        checkpoint = restored = None
        if run.checkpoint:
            checkpoint = TrialCheckpoint(out_dir / "checkpoint", [record.trial_key for record in records])
            stack.callback(checkpoint.close)
            restored = None if run.retrain else checkpoint.restore(trainer.abstract_state)
        if restored is None and trial.pretraining:
            from ffem_jax.pretraining import start_from

            pretrained = _pretrain(trial.pretraining, run, pretraining_dir, records[0].pretraining_fingerprint)
            restored = 0, start_from(trainer.init(), pretrained), History(bad_steps=[""] * len(records))
        bar = stack.enter_context(TrainingBar(trial, trainer.steps_per_epoch, enabled=run.progress))

        def finish_epoch(epochs: int, state: TrainState, history: History) -> None:
            if checkpoint:
                checkpoint.save(epochs, state, history)
            logger.log_epoch(epochs, history)

        training = trainer.fit(
            restored=restored,
            stop_epoch=run.stop_epoch,
            on_epoch=finish_epoch,
            on_progress=bar.update,
        )
    if split.pairs:
        everything = np.unique([split.pairs.first, split.pairs.second])
    else:
        everything = np.concatenate([split.test, split.train])
    embeddings, logits = trainer.embed(training.state, everything)
    shape = (len(records), len(everything), -1)
    embeddings, logits = embeddings.reshape(shape), logits.reshape(shape)
    tests, history = len(split.test), training.history
    for index, record in enumerate(records):
        record.epochs = len(history.loss)
        record.loss = [epoch[index] for epoch in history.loss]
        record.train_accuracy = [epoch[index] for epoch in history.train_accuracy]
        record.validation_accuracy = [epoch[index] for epoch in history.validation_accuracy]
        record.train_images_per_second = training.images_per_second
        record.compile_seconds = round(training.compile_seconds, 3)
        record.device = describe_device(trainer.device_count)
        if history.bad_steps[index]:
            record.error = f"the loss is not finite: {history.bad_steps[index]}; try a smaller recipe.learning_rate"
            continue
        if split.pairs:
            first, second = (np.searchsorted(everything, side) for side in (split.pairs.first, split.pairs.second))
            vectors, pairs = embeddings[index], split.pairs
            metrics = compute_pair_metrics(vectors[first], vectors[second], pairs.same, pairs.fold, trial.protocol)
        else:
            metrics = compute_metrics(
                logits[index, :tests],
                embeddings[index, :tests],
                faces.labels[split.test],
                embeddings[index, tests:],
                faces.labels[split.train],
                trial.protocol,
                find_duplicates(faces.labels[split.train], [faces.content[i] for i in split.train]).select(
                    len(split.train)
                ),
            )
            record.test_images = split.test.tolist()
        for name, value in metrics.items():
            setattr(record, name, value)
        if record.epochs < trial.recipe.epochs:
            record.status = "pruned"
            continue
        if run.keep_weights:
            evaluated = training.state.evaluated
            if len(records) > 1:
                evaluated = jax.tree.map(lambda leaf, index=index: leaf[index], evaluated)
            known = (describe_faces(faces, split), KnownFaces(record.pretraining_fingerprint))
            save_weights(out_dir, record.trial_key, record.spec, *evaluated, known)
        record.status = "done"


def _append(records_path: Path, record: TrialRecord) -> None:
    try:
        append_record(records_path, record)
    except OSError as error:
        kept = " The checkpoint is kept: the same command records it without training again." if record.epochs else ""
        raise OSError(
            error.errno,
            f"the record of {record.arch} seed {record.seed} could not be written ({error.strerror}).{kept}",
        ) from error


def describe_error(error: BaseException) -> str:
    """An exception in one line: its type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def describe_device(count: int) -> str:
    """What `count` devices of this process train on: an accelerator's name, or the CPU's with its cores."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.device_kind} ({device.platform})"
    return f"{find_processor()} ({count} of {os.cpu_count()} cores, cpu)"


def enable_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in `folder`; the environment's JAX_COMPILATION_CACHE_DIR chooses another, empty none."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
