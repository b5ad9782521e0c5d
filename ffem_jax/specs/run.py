"""The settings of a run, which do not affect results, and the registry of loggers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ffem_jax.errors import describe_install
from ffem_jax.specs.fields import SpecError, check_fields, setting
from ffem_jax.specs.registry import Reference, Registry

PRECISIONS = ("float32", "float16", "int8")
SEED_MAX = 2**31 - 1
# Where images are kept during training; the first is the default.
LOADS = ("auto", "memory", "stream")


@dataclass(frozen=True)
class Logger:
    """A logger for `logger=NAME`, through conf/logger/NAME.yaml.

    board: (TrialRecord, the trial's folder, whether it is trained again) -> a `training.loggers.board.Board`; None
    logs nothing. library: the module that it needs. install: the command that installs it.
    """

    name: str
    board: Reference | None = None
    library: str = ""
    install: str = ""


LOGGERS: Registry[Logger] = Registry("run.logger")
_ROOM = "ffem_jax.training.loggers"
LOGGERS.register(Logger("none"))
LOGGERS.register(
    Logger("tensorboard", f"{_ROOM}.event_files:EventFiles", "tensorboardX", describe_install("tensorboard"))
)
LOGGERS.register(Logger("mlflow", f"{_ROOM}.mlflow_run:MlflowRun", "mlflow", describe_install("mlflow")))
LOGGERS.register(Logger("wandb", f"{_ROOM}.wandb_run:WandbRun", "wandb", describe_install("wandb")))


@dataclass(frozen=True)
class RunSpec:
    """The settings of a run, which do not affect results."""

    records: str = setting(
        "", "The JSON-lines file of the records; empty uses records.jsonl in the run's (or the sweep's) folder."
    )
    cap_mb: float = setting(10.0, "The size limit of a network.", low=0.0, high=math.inf, unit="MB of 10**6 bytes")
    cap_precision: str = setting("float32", "The precision at which the size is checked.", choices=PRECISIONS)
    cap_mmacs: float = setting(
        0.0, "The limit of multiply-accumulates (MACs) per face; 0 is no limit.", low=0.0, high=math.inf,
        unit="millions",
    )  # fmt: skip
    train_over_cap: bool = setting(False, "Whether a network over a limit is trained anyway.")
    retrain: bool = setting(False, "Whether a trial already recorded as done is trained again.")
    seeds: tuple[int, ...] = setting(
        (), "Seeds of one network to train as one program (vmap); empty trains `seed` alone.", low=0, high=SEED_MAX
    )
    stop_epoch: int = setting(
        0,
        "Stop after this many epochs of the recipe's schedule, evaluate, and record the trial as pruned; run again, it "
        "resumes from its checkpoint. 0, or at least recipe.epochs, trains to the end.",
        low=0,
        unit="epochs",
    )
    checkpoint: bool = setting(True, "Whether a checkpoint is saved after every epoch, for resuming.", source="Orbax")
    checkpoint_minutes: float = setting(
        10.0, "How often a checkpoint is also saved within an epoch; 0 saves only after epochs.", low=0.0,
        high=math.inf, unit="minutes",
    )  # fmt: skip
    keep_weights: bool = setting(
        True, "Whether the trained network is saved in the trial's folder, in float32, for `ffem export`."
    )
    progress: bool = setting(True, "Whether progress bars are shown on a terminal.")
    logger: str = setting("none", "An additional logger for each epoch.", choices=lambda: LOGGERS.names)
    cores: int = setting(
        0, "Number of CPU cores that share a batch, unless JAX has already started; 0 uses all.", low=0
    )
    devices: int = setting(
        0, "Maximum number of devices (accelerators, or CPU cores) per process that share a batch; 0 uses all.",
        low=0,
    )  # fmt: skip
    processes: int = setting(
        1,
        "Processes that train each trial together, all started by the same command; 0 asks Slurm or Open MPI.",
        low=0,
        source="jax.distributed",
    )
    process: int = setting(
        -1,
        "With several processes: the index of this one, from 0; -1 asks Slurm or Open MPI. The first one writes.",
        low=-1,
    )
    coordinator: str = setting(
        "",
        "With several processes: HOST:PORT of the first; empty uses JAX_COORDINATOR_ADDRESS, Slurm or Open MPI.",
    )
    heartbeat_seconds: int = setting(
        100,
        "With several processes: a process silent for this long counts as dead, and the others end; at the start they "
        "wait three times as long for each other.",
        low=10,
        unit="seconds",
    )
    load: str = setting(
        LOADS[0],
        "Where the images of folders and packed sets are kept: in memory, or on disk and read in every epoch (stream); "
        "auto streams a set that does not fit in free memory. The result is the same.",
        choices=LOADS,
        source="Grain",
    )
    decode_processes: int = setting(
        0,
        "Number of processes that decode the images of a streamed packed set or folder, in the first scan and ahead of "
        "training. With 0 the trial's own process decodes. The result is the same.",
        low=0,
        source="Grain",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        check_fields(self, "run")
        if self.stop_epoch and not self.checkpoint:
            raise SpecError(
                f"run.stop_epoch={self.stop_epoch} needs a checkpoint to resume from; set run.checkpoint=true"
            )
        if self.processes > 1 and self.process >= self.processes:
            raise SpecError(
                f"run.process={self.process} is not among run.processes={self.processes}, which count from 0"
            )
        if self.coordinator and not self.coordinator.rpartition(":")[2].isdigit():
            raise SpecError(f"run.coordinator={self.coordinator!r} must be HOST:PORT, such as node1:1234")
        if len(set(self.seeds)) != len(self.seeds):
            raise SpecError(f"run.seeds={list(self.seeds)} contains a seed twice")

    def measure_excess(self, size: float, macs: float) -> tuple[float, str]:
        """Return the larger relative excess over the two limits, and a description of that limit.

        size: bytes at `cap_precision`. macs: MACs per face. An excess of at most 0 is within both, without description.
        """
        limits = [(size, self.cap_mb * 1e6, f"{size / 1e6:.2f} MB is over the cap of {self.cap_mb:g} MB")]
        if self.cap_mmacs:
            text = f"{macs / 1e6:.1f} M MACs is over the cap of {self.cap_mmacs:g} M MACs"
            limits.append((macs, self.cap_mmacs * 1e6, text))
        excess, text = max((cost / limit - 1 if limit else 1.0, text) for cost, limit, text in limits)
        return excess, text if excess > 0 else ""
