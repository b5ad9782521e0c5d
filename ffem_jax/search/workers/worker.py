"""A worker: claims a network, trains it and stores its outcome in the study, until no work is left.

Started as `python -m ffem_jax.search.workers.worker FOLDER NAME` on this machine, or by `run_worker` on Ray and Slurm.
It needs only the search's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ffem_jax.config.compose import ConfigError, open_composer
from ffem_jax.records.record import TrialRecord
from ffem_jax.search.candidates import CandidateMaker
from ffem_jax.search.plan import SearchPlan, load_plan, read_saved
from ffem_jax.search.samplers import freeze
from ffem_jax.search.space import Point, SpaceError
from ffem_jax.search.storage import open_storage
from ffem_jax.search.study import Claim, SearchError, SearchStudy
from ffem_jax.specs.architecture import SpecError

log = logging.getLogger("ffem_jax.search.workers.worker")  # __main__ on this machine

POLL_SECONDS = 1.0
BAD_REQUEST = 2  # the exit status for an error that any other worker would hit too


def open_study(plan: SearchPlan, maker: CandidateMaker | None = None) -> SearchStudy:
    """Open the study of `plan`; claims need a `maker`. Raises ConfigError and SearchError."""
    storage, lock = open_storage(plan.settings.storage, plan.study_name, plan.folder)
    study = SearchStudy(plan.settings, plan.space, storage, lock, plan.study_name, maker.make if maker else None)
    study.rungs = plan.rungs
    study.check_identity(plan.identify() | {"faces": identify_faces(plan)})
    return study


def identify_faces(plan: SearchPlan) -> str:
    """Return a fingerprint of the faces that the networks are trained and pretrained on, whatever their resolution.

    A worker on another machine may find other faces at the same path. Synthetic ones are determined by the plan.
    """
    from ffem_jax.data.protocols import load_split

    known = []
    for trial in filter(None, (plan.base, plan.base.pretraining)):
        faces, split = load_split(trial.data, trial.protocol)
        known.append("synthetic" if faces.synthetic else faces.pictures_fingerprint + split.digest)
    return " ".join(known)


def train(plan: SearchPlan, claim: Claim) -> list[TrialRecord]:
    """Return the records of a claim, one per seed: trained now, or found."""
    from ffem_jax.runs.trial import run_trials

    trial, run = claim.candidate.trial, claim.candidate.run
    assert trial is not None
    assert run is not None
    run = dataclasses.replace(run, records=str(plan.records_path), progress=False, stop_epoch=claim.stop_epoch)
    out_dir = plan.get_trial_dir(trial, run.seeds)
    records = run_trials(trial, run, out_dir, plan.records_path)
    for name in plan.settings.costs:
        if name in MEASUREMENTS:
            records = MEASUREMENTS[name](plan.records_path, records)
    return records


def measure_latency(path: Path, records: list[TrialRecord]) -> list[TrialRecord]:
    """Return `records` with the latency that `ffem latency` measures, one worker per machine at a time."""
    from filelock import FileLock

    from ffem_jax.latency.measure import measure_records
    from ffem_jax.records.record import latest_records, read_records

    wanted = {record.trial_key for record in records if record.status == "done"}
    # One file per user: another user's file in a shared folder cannot be opened, which would stop the search.
    with FileLock(Path(tempfile.gettempdir()) / f"ffem-latency-{os.getuid()}.lock"):
        if any(record.latency_ms_wasm is None for record in records if record.trial_key in wanted):
            measure_records([path])
    measured = {record.trial_key: record for record in latest_records(read_records(path))}
    return [measured.get(record.trial_key, record) for record in records]


# Record fields that training leaves empty, and the function that fills each.
MEASUREMENTS = {"latency_ms_wasm": measure_latency}


class Heartbeat(threading.Thread):
    """Reports to the study every heartbeat_seconds that a claim's worker is alive."""

    def __init__(self, study: SearchStudy, claim: Claim) -> None:
        super().__init__(daemon=True)
        self.study, self.claim, self.stopping = study, claim, threading.Event()

    def run(self) -> None:
        """Beat until stopped."""
        count = 0
        while True:
            count += 1
            try:
                self.study.beat(self.claim.number, count)
            except Exception:
                # If the database is briefly unavailable, a heartbeat is lost and not the trial.
                log.warning("no heartbeat", exc_info=True)
            if self.stopping.wait(self.study.settings.heartbeat_seconds):
                return

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join()


@dataclasses.dataclass
class Worker:
    """The loop of one worker.

    Args:
        execute: maps a claim to its records.
        discard: called with the point of each network that is eliminated.
    """

    name: str
    study: SearchStudy
    execute: Callable[[Claim], list[TrialRecord]]
    discard: Callable[[Point], None] = lambda point: None
    poll_seconds: float = POLL_SECONDS
    claim: Claim | None = None

    def run(self) -> int:
        """Work until nothing is left.

        Returns:
            The number of networks that this worker trained.

        Raises:
            ConfigError, SpecError, DataError, OSError: if the request cannot be met, as with missing data or a full
                disk; the claim is released first.
        """
        done, idle = 0, threading.Event()
        while True:
            self.claim = self.study.claim(self.name)
            if self.claim is None:
                if self.study.is_over():
                    return done
                idle.wait(self.poll_seconds)
                continue
            self.run_claim(self.claim)
            self.claim = None
            done += 1

    def run_claim(self, claim: Claim) -> None:
        """Train one network and store its outcome in the study."""
        from ffem_jax.data import DataError

        log.info("trial %d, attempt %d: %s", claim.number, claim.attempt, dict(claim.candidate.point))
        try:
            with Heartbeat(self.study, claim):
                records = self.execute(claim)
        except (ConfigError, SpecError, DataError, OSError, KeyboardInterrupt):
            self.study.release(claim)
            raise
        except Exception as error:
            log.exception("trial %d stopped", claim.number)
            self.study.tell_failure(claim, f"{type(error).__name__}: {error}")
        else:
            if not self.study.tell_records(claim, records):
                log.info("trial %d was taken over while this worker was silent", claim.number)
            for point in self.study.find_eliminated():
                self.discard(point)
        release_memory()

    def leave(self) -> None:
        """Release the claim, before another thread ends the process."""
        if self.claim is not None:
            self.study.release(self.claim)


def release_memory() -> None:
    """Free the memory that JAX holds for the last network."""
    if "jax" in sys.modules:
        import jax

        from ffem_jax.machine import devices

        jax.clear_caches()
        gc.collect()
        devices.release_memory()


def make_on_abandoned(plan: SearchPlan, maker: CandidateMaker) -> Callable[[Point, str], list[TrialRecord]]:
    """Return a function that records a network whose workers were killed as failed, and returns its records."""

    def on_abandoned(point: Point, reason: str) -> list[TrialRecord]:
        from ffem_jax.runs.trial import record_failure

        trial, run = maker.compose(point)
        return record_failure(trial, run, plan.get_trial_dir(trial, run.seeds), plan.records_path, reason)

    return on_abandoned


def make_discard(plan: SearchPlan, maker: CandidateMaker) -> Callable[[Point], None]:
    """Return a function that deletes a network's checkpoint, once. Checkpoints are most of a search's disk space."""
    discarded: set[tuple[str, ...]] = set()

    def discard(point: Point) -> None:
        from ffem_jax.runs.trial import discard_checkpoint

        if freeze(point) not in discarded:
            trial, run = maker.compose(point)
            discard_checkpoint(plan.get_trial_dir(trial, run.seeds))
            discarded.add(freeze(point))

    return discard


@contextlib.contextmanager
def open_worker(folder: Path, name: str) -> Iterator[Worker]:
    """Yield the worker `name` of the search in `folder`."""
    from hydra.core.global_hydra import GlobalHydra

    # A launcher's job inherits its parent's Hydra state, which would prevent composing here.
    GlobalHydra.instance().clear()
    _, _, config_dir = read_saved(folder)
    with open_composer(config_dir) as composer:
        plan = load_plan(composer, folder)
        maker = CandidateMaker(composer, plan.fixed, plan.space)
        study = open_study(plan, maker)
        study.on_abandoned = make_on_abandoned(plan, maker)
        start_devices(plan)
        yield Worker(name, study, lambda claim: train(plan, claim), make_discard(plan, maker))


def start_devices(plan: SearchPlan) -> None:
    """Set the number of cores per trial before the first cost is traced, because JAX reads it once."""
    from ffem_jax.machine.devices import use_cpu_cores

    use_cpu_cores(plan.run.cores)


def run_worker(folder: str, name: str) -> int:
    """Work for the search in `folder` in this process; Ray and Slurm run this."""
    with open_worker(Path(folder), name) as worker:
        return worker.run()


def stop_with_parent(worker: Worker) -> None:
    """End this process when its parent ends, for any reason: the parent's end of our standard input closes."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    worker.leave()
    os._exit(1)


def main(words: list[str]) -> int:
    """Run `python -m ffem_jax.search.workers.worker FOLDER NAME`; the log goes to standard error."""

    def interrupt(_number: int, _frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("ffem_jax").setLevel(logging.INFO)
    folder, name = words
    try:
        signal.signal(signal.SIGTERM, interrupt)
        with open_worker(Path(folder), name) as worker:
            threading.Thread(target=stop_with_parent, args=(worker,), daemon=True).start()
            log.info("%d networks", worker.run())
    except KeyboardInterrupt:
        return 130
    except (ConfigError, SpaceError, SpecError, SearchError, ValueError, OSError) as error:
        if isinstance(error, OSError) or type(error).__module__.startswith("ffem_jax."):
            log.error("error: %s", " ".join(str(error).split()))
            return BAD_REQUEST
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
