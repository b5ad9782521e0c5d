"""Starts the workers of a search, on this machine or through a launcher, and waits until the study is over.

On this machine each worker is a new process. None is forked from a process that has started JAX, and the death of one
does not affect the others (joblib's pool is lost with its first dead process). On Ray and Slurm, workers are jobs of
Hydra's launchers, with all their settings.

A worker on this machine ends when its standard input closes, which happens when its parent dies.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ffem_jax.config.compose import SWEEP_GROUP, Composer, ConfigError, check_writable, find_sweep
from ffem_jax.config.overrides import quote_value
from ffem_jax.runs.interrupts import answer_interrupts
from ffem_jax.search.candidates import CandidateMaker
from ffem_jax.search.plan import SearchPlan, plan_search, save_plan
from ffem_jax.search.samplers import check_sampler
from ffem_jax.search.study import SearchError, SearchStudy
from ffem_jax.search.workers.adoption import adopt_recorded
from ffem_jax.search.workers.following import SearchFollower
from ffem_jax.search.workers.worker import BAD_REQUEST, make_on_abandoned, open_study, run_worker

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
STOP_SECONDS = 15.0  # for a worker to return its claim; a compilation is not interrupted
LAUNCHES = 3  # consecutive launches without a finished network
# The class names of hydra.launcher (as suffixes) for which workers are processes on this machine.
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher")


def launch_search(
    composer: Composer, plan: SearchPlan, report: Callable[[str], None], config_dir: Path | None = None
) -> SearchStudy:
    """Run the search to its end.

    Args:
        report: called with lines of progress.
        config_dir: the user's config folder.

    Returns:
        The study.

    Raises:
        ConfigError, SearchError: if it cannot continue. Finished trainings are recorded; the same command resumes.
    """
    maker = CandidateMaker(composer, plan.fixed, plan.space)
    study = open_study(plan)
    study.on_abandoned = make_on_abandoned(plan, maker)
    save_plan(plan, config_dir, find_sweep(plan.name, config_dir))
    if adopted := adopt_recorded(plan, maker, study):
        report(f"{adopted} networks taken over from the records")
    follower = SearchFollower(study, plan.run, report)
    missing = plan.settings.n_trials - len(follower.start().finished)
    if study.is_over():
        return study
    # If all networks have begun, some may still have to continue.
    count = min(plan.workers, missing) if missing > 0 else plan.workers
    workers: Workers = (
        LocalWorkers(plan, study, count)
        if str(plan.config.hydra.launcher._target_).endswith(LOCAL_LAUNCHERS)
        else LaunchedWorkers(composer, plan, count, study)
    )
    with answer_interrupts(), workers.keep_running():
        while not study.is_over():
            time.sleep(LOOK_SECONDS)
            if follower.look():
                workers.note_progress()
            workers.look()
    follower.look()
    return study


def prepare_search(plan: SearchPlan) -> list[str]:
    """Check everything that would stop every trial, before a worker is started.

    Returns:
        Lines for the user.

    Raises:
        ConfigError, DataError: if a sampler, a folder or data cannot be used.
    """
    from ffem_jax.data.protocols import load_split

    check_sampler(plan.settings.sampler, plan.settings.sampler_options, plan.space)
    check_writable(plan.sweep_dir, "hydra.sweep.dir=DIR")
    check_writable(plan.records_path.parent, "run.records=FILE")
    notes: list[str] = []
    for trial in filter(None, (plan.base.pretraining, plan.base)):
        faces, split = load_split(trial.data, trial.protocol)
        notes += [*faces.notes, *split.notes]
    settings = plan.settings
    objectives = " and ".join(f"{name} {'up' if name == 'accuracy' else 'down'}" for name in settings.objectives)
    return [
        *dict.fromkeys(notes),
        f"{settings.n_trials} networks of a space of {plan.space.size:.3g}, sampler {settings.sampler}: {objectives}",
        *describe_halving(plan),
        f"records: {plan.records_path}",
    ]


def describe_halving(plan: SearchPlan) -> list[str]:
    """Return the rungs, in one line; empty without halving."""
    if not plan.rungs:
        return []
    *cuts, last = map(str, plan.rungs)
    reduction = plan.settings.halving.reduction
    return [f"after epoch {' and '.join(cuts)} of {last} one network in {reduction} continues"] if cuts else []


class Workers(Protocol):
    """The workers of a search."""

    def keep_running(self) -> contextlib.AbstractContextManager[None]:
        """Start them, and stop them at the end."""

    def look(self) -> None:
        """Restart workers that died. Raises SearchError if they keep dying."""

    def note_progress(self) -> None:
        """Note that a network was finished: workers that died before it no longer count against the search."""


# ------------------------------------------------------------------------------ this machine


@dataclass
class LocalWorkers:
    """Processes on this machine. A dead one is replaced, and its network is assigned to another at once."""

    plan: SearchPlan
    study: SearchStudy
    count: int
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    deaths: int = 0
    started: int = 0

    @contextlib.contextmanager
    def keep_running(self) -> Iterator[None]:
        """Start them, and stop them at the end."""
        try:
            for _ in range(self.count):
                self.start()
            yield
        finally:
            self.stop()

    def start(self) -> None:
        """Start one worker; its log is in the search's folder."""
        place, self.started = self.started % self.count, self.started + 1
        name = f"{os.getpid()}-{place}-{uuid.uuid4().hex[:6]}"
        log_path = self.get_log(name)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(log_path, "ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "ffem_jax.search.workers.worker", str(self.plan.folder), name],
                stdin=subprocess.PIPE,  # closes when this process ends, for any reason
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C goes to the parent, which stops them
                env=assign_accelerator(place, self.count, dict(os.environ)),
            )

    def get_log(self, name: str) -> Path:
        """Return the path of the log of the worker `name`."""
        return self.plan.folder / "workers" / f"{name}.log"

    def look(self) -> None:
        """Reap dead workers and start others. Raises SearchError if they die without finishing a network."""
        for name, process in list(self.processes.items()):
            status = process.poll()
            if status is None or status == 0:
                continue
            del self.processes[name]
            self.study.reap_worker(name)
            reason = read_last_line(self.get_log(name))
            if status == BAD_REQUEST:
                raise SearchError(reason.removeprefix("error: ") or f"a worker stopped; see {self.get_log(name)}")
            self.deaths += 1
            log.warning("a worker died (%s); another takes its place", describe_status(status))
            if self.deaths > 3 * self.count + 3:
                raise SearchError(
                    f"{self.deaths} workers died ({describe_status(status)}) before a network was finished; "
                    f"see {self.get_log(name)}"
                )
            self.start()

    def note_progress(self) -> None:
        """Reset the count of deaths."""
        self.deaths = 0

    def stop(self) -> None:
        """Ask all to stop, wait, and kill those that do not."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for name, process in self.processes.items():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()
            self.study.reap_worker(name, stopped=True)


def assign_accelerator(place: int, workers: int, environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with one of this machine's accelerators for the worker at `place`; unchanged without any."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        accelerators = [name for name in named.split(",") if name]
    else:
        found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
        accelerators = sorted(found, key=int)
    if not accelerators:
        return environment
    environment["CUDA_VISIBLE_DEVICES"] = accelerators[place % len(accelerators)]
    if workers > len(accelerators):
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return environment


def describe_status(status: int) -> str:
    """Return a process's exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def read_last_line(path: Path) -> str:
    """Return the last line of a worker's log, without its time."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.split(" ", 2)[2] if last[:2] == "20" and last.count(" ") >= 2 else last


# --------------------------------------------------------------------------------- elsewhere


@dataclass
class LaunchedWorkers:
    """Worker jobs of a Hydra launcher.

    Dead ones are detected by their silence. If all are gone and the search is not over, the same number is launched
    again.
    """

    composer: Composer
    plan: SearchPlan
    count: int
    study: SearchStudy
    launches: int = 0
    fruitless: int = 0
    thread: threading.Thread | None = None
    error: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    next_look: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def keep_running(self) -> Iterator[None]:
        """Launch them. They end on their own when the study is over."""
        self.launch()
        try:
            yield
        except BaseException:
            if str(self.plan.config.hydra.launcher._target_).endswith("RayLauncher"):
                self.stop_ray()  # Slurm's jobs continue, and the same command follows them again
            raise
        assert self.thread is not None
        self.thread.join(timeout=STOP_SECONDS)

    def stop_ray(self) -> None:
        """Leave the cluster, which ends this command's workers, and release their networks."""
        import ray

        ray.shutdown()
        for trial in self.study.read_ledger().running:
            if (worker := trial.user_attrs.get("claim", {}).get("worker", "")).startswith(self.token):
                self.study.reap_worker(worker, stopped=True)

    def launch(self) -> None:
        """Launch all of them in a thread: the launcher returns only when they are done, or when one is lost."""
        self.launches += 1
        self.thread = threading.Thread(target=self._launch, args=(self.launches,), daemon=True)
        self.thread.start()

    def _launch(self, number: int) -> None:
        from hydra.core.plugins import Plugins

        self.error = ""
        try:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=self.composer.make_context(self.plan.config),
                task_function=run_worker_job,
                config=self.plan.config,
            )
            places = [f"search/workers/{self.token}-{number}-{worker}" for worker in range(self.count)]
            jobs = [[*self.plan.fixed, f"hydra.sweep.subdir={quote_value(place)}"] for place in places]
            errors = [str(returned.return_value) for returned in launcher.launch(jobs, initial_job_idx=0)]
            self.error = next((error for error in errors if error), "")
        except Exception as error:
            log.info("the launcher stopped", exc_info=True)
            self.error = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]

    def look(self) -> None:
        """Reap silent workers; launch again if the launcher has returned and no worker trains."""
        assert self.thread is not None
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + self.plan.settings.heartbeat_seconds
        self.study.reap_silent()
        if self.thread.is_alive() or self.study.read_ledger().running:
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > self.plan.settings.stale_seconds or self.error:
            if self.fruitless >= LAUNCHES:
                raise SearchError(
                    f"{LAUNCHES} launches in a row finished no network: {self.error or 'no reason given'}"
                )
            self.fruitless += 1
            self.launch()

    def note_progress(self) -> None:
        """Reset the count of launches without a result."""
        self.fruitless = 0


def run_worker_job(config: Any) -> str:
    """Run a worker as a Hydra task function. Returns why it stopped early; empty if it did not."""
    from hydra.core.hydra_config import HydraConfig

    sweep = HydraConfig.get().sweep
    name = f"{Path(str(sweep.subdir)).name}-{socket.gethostname()}-{os.getpid()}"
    try:
        run_worker(str(Path(str(sweep.dir)) / "search"), name)
    except Exception as error:
        # Text, because an exception that cannot be pickled would stop the other workers too.
        log.exception("the worker stopped")
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def sweep_by_hydra(config: Any, arguments: Sequence[str]) -> SearchStudy:
    """Run the search of `+sweep=NAME` in a `hydra.main` application that uses ffem's conf/.

    Raises:
        ConfigError: if no sweep is named, and otherwise as `launch_search` does.
    """
    name = config.hydra.runtime.choices.get(SWEEP_GROUP)
    if not name:
        raise ConfigError("hydra/sweeper=search needs a sweep's space; add +sweep=NAME, or use ffem sweep NAME")
    composer = Composer([])
    # Hydra stores its own overrides separately.
    given = [*config.hydra.overrides.hydra, *arguments]
    plan = plan_search(
        composer, name, [one for one in given if not one.startswith((f"+{SWEEP_GROUP}=", "hydra.mode="))]
    )
    report = functools.partial(print, file=sys.stderr, flush=True)
    for note in prepare_search(plan):
        report(note)
    return launch_search(composer, plan, report)
