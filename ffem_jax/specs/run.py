"""What a run needs to know and a result does not depend on; and the loggers that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ffem_jax.errors import describe_install
from ffem_jax.specs.fields import SpecError, check_fields, setting
from ffem_jax.specs.registry import Reference, Registry

PRECISIONS = ("float32", "float16", "int8")
SEED_MAX = 2**31 - 1
# Where the images of a set are while it trains; the first is the default.
LOADS = ("auto", "memory", "stream")


@dataclass(frozen=True)
class Logger:
    """A logger that `logger=NAME` can choose, by way of conf/logger/NAME.yaml.

    board: (TrialRecord, the trial's folder, whether it is trained again) -> a `training.loggers.board.Board`; None
    logs nothing. library: the module it writes with. install: the command that installs it.
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
    """What a run needs to know and a result does not depend on."""

    records: str = setting(
        "", "The JSON-lines file of the records; empty puts records.jsonl in the run's (or the sweep's) folder."
    )
    cap_mb: float = setting(10.0, "The size limit of a network.", low=0.0, high=math.inf, unit="MB of 10**6 bytes")
    cap_precision: str = setting("float32", "The precision that the size is checked at.", choices=PRECISIONS)
    cap_mmacs: float = setting(
        0.0, "The limit of multiply-accumulates (MACs) for one face; 0 is none.", low=0.0, high=math.inf,
        unit="millions",
    )  # fmt: skip
    train_over_cap: bool = setting(False, "Whether a network over a limit is trained all the same.")
    retrain: bool = setting(False, "Whether a trial is trained that the records already hold as done.")
    seeds: tuple[int, ...] = setting(
        (), "Seeds of one network to train as one program (vmap); empty trains `seed` alone.", low=0, high=SEED_MAX
    )
    stop_epoch: int = setting(
        0,
        "Stop after so many epochs of the recipe's schedule, evaluate, and record the trial as pruned; asked for again "
        "it goes on from its checkpoint. 0, or recipe.epochs and more, trains to the end.",
        low=0,
        unit="epochs",
    )
    checkpoint: bool = setting(
        True, "Whether a checkpoint is kept after every epoch, and gone on from.", source="Orbax"
    )
    checkpoint_minutes: float = setting(
        10.0, "How often a checkpoint is also kept within an epoch; 0 keeps those after epochs alone.", low=0.0,
        high=math.inf, unit="minutes",
    )  # fmt: skip
    keep_weights: bool = setting(
        True, "Whether the trained network is kept in the trial's folder, in float32: what `ffem export` reads."
    )
    progress: bool = setting(True, "Whether progress bars are drawn on a terminal.")
    logger: str = setting("none", "Where each epoch is written besides.", choices=lambda: LOGGERS.names)
    cores: int = setting(
        0, "The CPU cores that a batch is split over, where JAX has not started yet; 0 takes all.", low=0
    )
    devices: int = setting(
        0, "The devices (accelerators, or CPU cores) of a process that a batch is split over at most; 0 takes all.",
        low=0,
    )  # fmt: skip
    processes: int = setting(
        1,
        "The processes that train each trial together, all started with the same command; 0 asks Slurm or Open MPI.",
        low=0,
        source="jax.distributed",
    )
    process: int = setting(
        -1, "Of several processes, which this one is, from 0; -1 asks Slurm or Open MPI. The first one writes.", low=-1
    )
    coordinator: str = setting(
        "",
        "Of several processes, HOST:PORT of the first; empty reads JAX_COORDINATOR_ADDRESS, or asks Slurm or Open MPI.",
    )
    heartbeat_seconds: int = setting(
        100,
        "Of several processes, the silence after which one counts as dead and the others end; at the start they wait "
        "three times as long for each other.",
        low=10,
        unit="seconds",
    )
    load: str = setting(
        LOADS[0],
        "Where the images of folders and packed sets are: in memory, or read from the disk in every epoch (stream); "
        "auto streams what does not fit in the memory that is free. The result is the same.",
        choices=LOADS,
        source="Grain",
    )
    decode_processes: int = setting(
        0,
        "The processes that decode images: of a packed set or a folder that is streamed, ahead of training, and when "
        "it is looked through for the first time. 0 has the trial's own process do it. The result is the same.",
        low=0,
        source="Grain",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        check_fields(self, "run")
        if self.stop_epoch and not self.checkpoint:
            raise SpecError(
                f"run.stop_epoch={self.stop_epoch} leaves a checkpoint to go on from; take run.checkpoint=true"
            )
        if self.processes > 1 and self.process >= self.processes:
            raise SpecError(f"run.process={self.process} is none of run.processes={self.processes}, which count from 0")
        if self.coordinator and not self.coordinator.rpartition(":")[2].isdigit():
            raise SpecError(f"run.coordinator={self.coordinator!r} must be HOST:PORT, such as node1:1234")
        if len(set(self.seeds)) != len(self.seeds):
            raise SpecError(f"run.seeds={list(self.seeds)} names a seed twice")

    def measure_excess(self, size: float, macs: float) -> tuple[float, str]:
        """How far a network is over the nearer of the two limits, as a fraction of it, and that limit in words.

        size: bytes at `cap_precision`. macs: of one face. At most 0 is within both, and then nothing is said.
        """
        limits = [(size, self.cap_mb * 1e6, f"{size / 1e6:.2f} MB is over the cap of {self.cap_mb:g} MB")]
        if self.cap_mmacs:
            text = f"{macs / 1e6:.1f} M MACs is over the cap of {self.cap_mmacs:g} M MACs"
            limits.append((macs, self.cap_mmacs * 1e6, text))
        excess, text = max((cost / limit - 1 if limit else 1.0, text) for cost, limit, text in limits)
        return excess, text if excess > 0 else ""
