"""Trials as Hydra jobs: one by `run_one`, or a whole sweep, planned before anything starts and handed to any launcher.

Hydra's own sweepers launch first and find the mistakes later. Here every combination is composed and checked
before the first is launched, the same network spelt twice is launched once, every folder is absolute and stable,
and no job raises: what went wrong comes back as a value.

Hydra's basic sweeper would also turn a misspelt sweep name into a config key, and skip its end-of-sweep callback when
a job raised. This leans on Hydra 1.3's inner interfaces, hence the bound below 1.4.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.config.compose import (
    AUTO_DIR,
    CONFIG_NAME,
    SWEEP_GROUP,
    Composer,
    ConfigError,
    check_writable,
    find_sweep,
    to_specs,
    write_places,
)
from ffem_jax.config.overrides import quote_value, refuse_sweeps
from ffem_jax.kernels import settle_engine
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.runs.interrupts import answer_interrupts
from ffem_jax.runs.progress import RecordFollower, read_recorded
from ffem_jax.specs.architecture import NetworkSpec, SpecError, resolve_network
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RunSpec, TeacherSpec, TrialSpec, trial_key

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobResult:
    """The result of one Hydra job.

    Args:
        records: those of its trials.
        error: why there are none; empty where there are.
        bad_input: the user can mend the error.
        out_dir: the job's folder.
    """

    records: tuple[TrialRecord, ...] = ()
    error: str = ""
    bad_input: bool = False
    out_dir: str = ""


def run_trial_job(config: DictConfig) -> JobResult:
    """The Hydra task function, in whichever process the launcher chose. Raises nothing but KeyboardInterrupt."""
    from hydra.core.hydra_config import HydraConfig

    from ffem_jax.data import DataError
    from ffem_jax.machine import hosts
    from ffem_jax.runs.trial import run_trials

    out_dir = str(HydraConfig.get().runtime.output_dir)
    keep_worker()
    try:
        with answer_interrupts():
            trial, run = to_specs(config)
            records = run_trials(trial, run, Path(out_dir), Path(run.records))
        return JobResult(records=tuple(records), out_dir=out_dir)
    except (ConfigError, SpecError, DataError, hosts.HostError) as error:
        return JobResult(error=str(error), bad_input=True, out_dir=out_dir)
    except Exception as error:
        # Kept as text: an exception that cannot be pickled would take the whole sweep with it.
        log.exception("the trial in %s stopped", out_dir)
        return JobResult(error=f"{type(error).__name__}: {error} (see {out_dir})", out_dir=out_dir)


def keep_worker() -> None:
    """Let a worker of joblib's keep what it compiled for its next trial; anywhere else do nothing.

    joblib takes growth by 0.3 GB for a leak and ends the process; this raises the limit to 3 GB.
    """
    executor: Any = sys.modules.get("joblib.externals.loky.process_executor")
    if hasattr(executor, "_MAX_MEMORY_LEAK_SIZE"):
        executor._MAX_MEMORY_LEAK_SIZE = int(3e9)


# ----------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Job:
    """The overrides of one Hydra job and what they compose to."""

    overrides: tuple[str, ...]
    trial: TrialSpec
    run: RunSpec

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """The trials of the job, one per seed."""
        seeds = self.run.seeds or (self.trial.seed,)
        return tuple(dataclasses.replace(self.trial, seed=seed) for seed in seeds)

    @property
    def folder(self) -> str:
        """The job's folder in the sweep's: readable, and the same whenever the same trial is asked for."""
        attention, seeds = self.trial.arch.attention, [trial.seed for trial in self.trials]
        label = self.trial.arch.name
        if attention.kind != "none":
            placement = attention.placement
            label += f"-{attention.kind}-{placement if isinstance(placement, str) else '_'.join(map(str, placement))}"
        label += f"-seed{'_'.join(map(str, seeds))}-{trial_key(self.trials[0])}"
        return re.sub(r"[^\w.-]+", "_", label)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, ready to launch.

    Args:
        config: the launcher's.
        combinations: how many there were before the same trial spelt twice was dropped.
        keys: what the trials are recorded under; empty until their faces were looked at.
        pretraining_keys: trial key -> the key of the pretraining that it starts from; empty without any.
    """

    name: str
    config: DictConfig
    jobs: tuple[Job, ...]
    combinations: int
    sweep_dir: Path
    records_path: Path
    keys: frozenset[str] = frozenset()
    pretraining_keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """Every trial of the sweep."""
        return tuple(trial for job in self.jobs for trial in job.trials)


def plan_sweep(composer: Composer, name: str, overrides: Sequence[str], config_dir: Path | None = None) -> SweepPlan:
    """Compose and check every combination of the sweep `name`, or of `overrides` alone where `name` is empty.

    Raises ConfigError or SpecError for the first one that cannot be run; nothing has been started then.
    """
    selected = []
    if name:
        composer.register_sweep(name, find_sweep(name, config_dir))
        selected = [f"+{SWEEP_GROUP}={name}"]
    user = composer.parse(overrides)
    fixed = [*selected, *(str(override.input_line) for override in user if not override.is_sweep_override())]
    config = composer.compose(fixed, multirun=True)
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        raise ConfigError(
            "hydra/sweeper is not for ffem, which expands a sweep by itself; leave it out, or take search"
        )
    # An override of the user's replaces the sweep's values of the same key.
    taken = {override.key_or_group for override in user}
    lines = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    params = [override for override in composer.parse(lines) if override.key_or_group not in taken]
    ours = [override for override in [*params, *user] if not override.is_hydra_override()]

    combinations = expand_combinations(ours)
    jobs = [make_job(composer, [*selected, *combination]) for combination in combinations]
    if len({job.run.records for job in jobs}) > 1:
        raise ConfigError("run.records differs between the trials of one sweep; give one file")
    return _place_jobs(composer, name, config, fixed, jobs)


def _place_jobs(
    composer: Composer, name: str, config: DictConfig, fixed: Sequence[str], jobs: Sequence[Job]
) -> SweepPlan:
    """Give the sweep, its records and every distinct job their absolute places."""
    if config.hydra.sweep.dir == AUTO_DIR:
        data_sets = "_".join(sorted({job.trial.data.name for job in jobs}))
        sweep_dir = Path.cwd() / "outputs" / f"{name or 'multirun'}-{data_sets}"
    else:
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
    records_path = Path(jobs[0].run.records or sweep_dir / "records.jsonl").absolute()
    records = f"run.records={quote_value(records_path)}"
    kept = drop_repeated(jobs)
    placed = [
        dataclasses.replace(
            job,
            overrides=(
                *job.overrides,
                *write_places(job.trial),
                records,
                f"hydra.sweep.subdir={quote_value(job.folder)}",
            ),
        )
        for job in (take_turns(kept) if config.launcher.jobs > 1 else kept)
    ]
    launching = composer.compose([*fixed, records, f"hydra.sweep.dir={quote_value(sweep_dir)}"], multirun=True)
    return SweepPlan(name, launching, tuple(placed), len(jobs), sweep_dir, records_path)


def expand_combinations(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """The product of all sweep values, the last key varying fastest, as Hydra's basic sweeper has it."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in overrides
    ]
    return list(itertools.product(*choices))


def make_job(composer: Composer, overrides: Sequence[str]) -> Job:
    """Compose and check one job. Raises ConfigError or SpecError."""
    overrides = composer.write_out_rows(overrides)  # for the launcher, which composes them by itself
    trial, run = to_specs(composer.compose(overrides), as_typed=True)
    return Job(tuple(overrides), trial, run)


def drop_repeated(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that hold a trial no earlier job holds; networks are compared as they are built."""
    seen: set[str] = set()
    kept = []
    for job in jobs:
        keys = {trial_key(trial) for trial in job.trials}
        if not keys <= seen:
            kept.append(job)
        seen |= keys
    return kept


def take_turns(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with every network once before any of them twice.

    Side by side, two trials of one network would both compile it; one after the other, the second finds it compiled.
    """
    seen: Counter[tuple[NetworkSpec, int]] = Counter()
    turns = []
    for job in jobs:
        network = resolve_network(job.trial.arch), job.trial.data.resolution
        turns.append((seen[network], job))
        seen[network] += 1
    return [job for _, job in sorted(turns, key=lambda turn: turn[0])]


def prepare_sweep(plan: SweepPlan) -> tuple[SweepPlan, list[str]]:
    """Find what would stop every trial before the first is launched: a folder that cannot be written, a bad data set.

    Loading the data once also leaves them decoded for trials that start side by side. Returns the plan with its keys,
    and what the user should know of the data. Raises ConfigError, DataError.
    """
    check_writable(plan.sweep_dir, "hydra.sweep.dir=DIR")
    check_writable(plan.records_path.parent, "run.records=FILE")
    notes, keys = check_data(plan.trials)
    pretraining_keys = {key: first for key, first in keys.items() if first}
    return dataclasses.replace(plan, keys=frozenset(keys), pretraining_keys=pretraining_keys), notes


def check_data(trials: Sequence[TrialSpec]) -> tuple[list[str], dict[str, str]]:
    """Load and split the data of `trials`.

    Returns:
        A note for each thing left out or odd, and the keys: that of each trial -> that of its pretraining, or empty.

    Raises:
        DataError: the data cannot be used.
    """
    from ffem_jax.data import protocols
    from ffem_jax.data.recorded import identify_faces
    from ffem_jax.teachers.teach import describe_teacher, load_teaching

    notes: dict[str, None] = {}
    known: dict[tuple[DataSpec, ProtocolSpec], str] = {}
    taught: dict[tuple[DataSpec, ProtocolSpec, TeacherSpec], str] = {}
    stages = [stage for trial in trials for stage in (trial.pretraining, trial) if stage]
    for data, protocol in dict.fromkeys((stage.data, stage.protocol) for stage in stages):
        faces, split = protocols.load_split(data, protocol)
        notes.update(dict.fromkeys([*faces.notes, *split.notes]))
        known[data, protocol] = identify_faces(faces, split)
        for trial in trials:
            place = trial.data, trial.protocol, trial.teacher
            if place[:2] == (data, protocol) and place not in taught and (found := load_teaching(trial, faces, split)):
                taught[place] = found.fingerprint
                notes.update(dict.fromkeys(describe_teacher(found)))

    def find(trial: TrialSpec) -> str:
        return known[trial.data, trial.protocol]

    keys = {}
    for trial in trials:
        first = trial.pretraining
        teaching = taught.get((trial.data, trial.protocol, trial.teacher), "")
        key = trial_key(trial, find(trial), find(first) if first else "", teaching)
        keys[key] = trial_key(first, find(first)) if first else ""
    return list(notes), keys


# ---------------------------------------------------------------------------------- launching


def run_one(composer: Composer, overrides: Sequence[str], report: Callable[[str], None] = print) -> JobResult:
    """Run one job here and now, in `hydra.run.dir` or in outputs/train/<network>-seed<seed>-<key>.

    Says through `report` what the user should know of the data. Raises ConfigError or SpecError for overrides that
    mean no trial or a folder that cannot be written, DataError for data that cannot be used.
    """
    from hydra.core.utils import run_job

    from ffem_jax.machine import hosts

    composer.parse(overrides)
    refuse_sweeps(composer.settle(overrides))
    job, config = make_job(composer, overrides), composer.compose(overrides)
    chosen = config.hydra.run.dir
    out_dir = (Path("outputs/train") / job.folder if chosen == AUTO_DIR else Path(chosen)).absolute()
    records_path = Path(job.run.records or out_dir / "records.jsonl").absolute()
    check_writable(out_dir, "hydra.run.dir=DIR")
    check_writable(records_path.parent, "run.records=FILE")
    hosts.join(job.run.processes, job.run.process, job.run.coordinator, job.run.heartbeat_seconds)
    for note in check_data(job.trials)[0]:
        if hosts.is_first():
            report(note)
    places = [f"hydra.run.dir={quote_value(out_dir)}", f"run.records={quote_value(records_path)}"]
    config = composer.compose([*overrides, *places])
    with answer_interrupts():
        returned = run_job(run_trial_job, config, "hydra.run.dir", None, composer.make_context(config))
    return _read_return(returned)


def fits(record: TrialRecord, run: RunSpec) -> bool:
    """Whether the record's network is known to fit the cap of `run`."""
    size = getattr(record, f"bytes_{run.cap_precision}")
    return size is not None and size <= run.cap_mb * 1e6


def launch_sweep(composer: Composer, plan: SweepPlan, report: Callable[[str], None]) -> list[JobResult]:
    """Run all jobs of `plan` as one Hydra multirun and say, through `report`, how far it is.

    Every job is launched: whether a trial is already recorded depends on the faces themselves, so the job decides.
    """
    from hydra.core.plugins import Plugins

    context = composer.make_context(plan.config)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=run_trial_job, config=plan.config
    )
    run = plan.jobs[0].run
    follower = RecordFollower(
        plan.records_path,
        plan.trials,
        plan.keys,
        report,
        jobs=plan.config.launcher.jobs,
        counted=sys.stderr.isatty(),
        may_be_best=lambda record: fits(record, run),
        pretraining_keys=plan.pretraining_keys,
    )
    context.callbacks.on_multirun_start(config=plan.config, config_name=CONFIG_NAME)
    try:
        with answer_interrupts(), settle_engine():
            returned = launcher.launch([list(job.overrides) for job in plan.jobs], initial_job_idx=0)
    except Exception as error:
        # A worker was killed, a cluster went away: what the others recorded is still there.
        log.exception("the launcher stopped")
        lost = f"the launcher stopped ({type(error).__name__}); the same command goes on from here"
        return [JobResult(tuple(read_recorded(plan.records_path, plan.keys)), lost)]
    finally:
        follower.stop()
        context.callbacks.on_multirun_end(config=plan.config, config_name=CONFIG_NAME)
    return [_read_return(one) for one in returned]


def _read_return(returned: Any) -> JobResult:
    try:
        result = returned.return_value
    except Exception as error:  # raised around the job, by Hydra or the launcher
        return JobResult(error=f"{type(error).__name__}: {error}")
    return result if isinstance(result, JobResult) else JobResult(error="the job returned no result")


def collect_records(results: Sequence[JobResult]) -> list[TrialRecord]:
    """One record per trial of this sweep; lines of the same file that are not part of it stay out."""
    return latest_records(record for result in results for record in result.records)
