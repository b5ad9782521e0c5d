"""How long training takes on this machine: from the seconds of recorded trials, or from a few steps timed now."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from ffem_jax.machine.processor import find_processor
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.trial import TrialSpec

# Of a training step, the share that embedding the same images takes: the forward pass without the backward one.
FORWARD_SHARE = 1 / 3
# Timed until so many seconds are over, after the steps that warm up.
TIMED_SECONDS, WARM_STEPS = 1.5, 2
# Images that are made up for timing: those of a batch are drawn from them.
IMAGES_AT_MOST = 2048
TEACHER_FEATURES = 512


@dataclass(frozen=True)
class Pace:
    """Seconds as a function of a network's MACs.

    Args:
        fixed, per_mac: seconds per training image are fixed + per_mac * MACs.
        compile_seconds: to trace and compile a network once.
        source: where it is from, as the end of a sentence.
    """

    fixed: float
    per_mac: float
    compile_seconds: float
    source: str

    def compute_step_seconds(self, macs: float) -> float:
        """Seconds of training per image."""
        return self.fixed + self.per_mac * macs

    def compute_seconds(self, macs: float, trained: int, embedded: int) -> float:
        """The seconds of one training: `trained` images, each counted once per epoch, and `embedded` ones."""
        return self.compute_step_seconds(macs) * (trained + FORWARD_SHARE * embedded)


def fit_pace(points: Sequence[tuple[float, float]], compile_seconds: float, source: str) -> Pace:
    """The pace through `points` of (MACs, seconds per image): a line, or in proportion where a line would fall.

    Raises:
        ValueError: there is no point.
    """
    macs, seconds = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    if np.ptp(macs) > 0.05 * macs.max():
        per_mac, fixed = np.polyfit(macs, seconds, 1)
        if per_mac > 0 and fixed >= 0:
            return Pace(float(fixed), float(per_mac), compile_seconds, source)
    return Pace(0.0, float(seconds.sum() / macs.sum()), compile_seconds, source)


def read_pace(records: Sequence[TrialRecord], cores: int, precisions: Collection[str] = ("float32",)) -> Pace | None:
    """The pace of the trials that this machine trained on `cores` cores (0: on all); None where there are none.

    precisions: of recipe.precision, those that are to be trained: one is several times as fast as another.
    The seconds of older trials count as they are: a newer version may be faster.
    """
    wanted = f"({cores or _count_cores()} of {os.cpu_count()} cores, cpu)"
    device = f"{find_processor()} {wanted}"
    own = [
        record
        for record in records
        if record.device == device and record.macs and record.train_images_per_second and record.epochs
        if record.view.recipe.precision in precisions
    ]
    if not own:
        return None
    points = [(float(record.macs or 0), 1 / (record.train_images_per_second or 1.0)) for record in own]
    compiling = [record.compile_seconds for record in own if record.compile_seconds is not None]
    return fit_pace(
        points,
        median(compiling) if compiling else 0.0,
        f"from the seconds of {len(own)} recorded trials of this processor",
    )


def _count_cores() -> int:
    import joblib

    return int(joblib.cpu_count(only_physical_cores=True))


def measure_pace(trials: Sequence[tuple[TrialSpec, int, int]], cores: int) -> Pace:
    """The pace of `trials`, a few steps of each timed now.

    Args:
        trials: (trial, its MACs, identities of its classifier); their networks should differ in MACs.
        cores: the CPU cores of a trial; 0 is all.
    """
    from ffem_jax.machine.devices import use_cpu_cores

    use_cpu_cores(cores)
    points, compiling = [], []
    for trial, macs, num_classes in trials:
        seconds, compile_seconds = _time_steps(trial, num_classes)
        points.append((float(macs), seconds))
        compiling.append(compile_seconds)
    what = "the smallest and the largest network" if len(trials) > 1 else "the network"
    source = f"from training steps of {what}, timed now{_describe_load()}"
    return fit_pace(points, sum(compiling) / len(compiling), source)


def _describe_load() -> str:
    """What others did to the processor in the last minute, where that was much."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f" on a busy machine ({load:.1f} processes for {cores} cores): less on a quiet one" if load > cores else ""


def _time_steps(trial: TrialSpec, num_classes: int) -> tuple[float, float]:
    """Seconds per image of a training step, and seconds of compiling."""
    import jax

    from ffem_jax.training.trainer import Trainer

    random, side = np.random.default_rng(0), trial.data.resolution
    count = max(2 * trial.recipe.batch_size, min(num_classes, IMAGES_AT_MOST))
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % max(2, num_classes)
    everything = np.arange(count)
    targets = None
    if trial.teacher.name != "none":
        targets = random.standard_normal((count, TEACHER_FEATURES)).astype(np.float32)
        targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    trainer = Trainer(
        resolve_network(trial.arch), trial.recipe, (trial.seed,), images, labels, everything, everything[:0], targets
    )
    state, metrics = trainer.init(), trainer.zero_metrics()
    steps, seconds = 0, 0.0
    for turn in range(10_000):
        started = time.perf_counter()
        state, metrics = trainer.run_steps(state, metrics, 0, 0, 1)
        jax.block_until_ready(metrics)
        if turn >= WARM_STEPS:
            steps, seconds = steps + 1, seconds + time.perf_counter() - started
        if steps >= 3 and seconds >= TIMED_SECONDS:
            break
    return seconds / (steps * trial.recipe.batch_size), trainer.compile_seconds
