"""From overrides to specs: the structured config, the folders it is composed from, errors in one line.

Hydra composes `conf/` over the schema below; `to_specs` turns the result into the frozen dataclasses of
`spec.py`. Hydra is imported where it is used, so that `ffem --help` does not wait for it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.arch import StageSpec, check_choice, check_range
from ffem_jax.overrides import explain_error, quote_value, suggest, to_line
from ffem_jax.spec import RunSpec, TrialSpec

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONFIG_NAME = "config"
SCHEMA_NAME = "application_schema"
SWEEP_GROUP = "sweep"
AUTO_DIR = "auto"  # what hydra.run.dir and hydra.sweep.dir say until the user chooses
# One value of one row of the stage table: its number from 0, its column, the value.
STAGE_ROW = re.compile(r"arch\.stages\.(\d+)\.(\w+)=(.*)")
LAUNCHERS = ("local", "joblib", "ray", "slurm")

# What a launcher needs: the plugin's module and the way to get it. Keys are choices of `launcher` and `hydra/launcher`.
_RAY = ("hydra_plugins.hydra_ray_launcher", "pip install 'ffem-jax[ray]'")
_SUBMITIT = ("hydra_plugins.hydra_submitit_launcher", "pip install 'ffem-jax[slurm]'")
LAUNCHER_PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "pip install hydra-joblib-launcher"),
    "ray": _RAY,
    "ray_aws": _RAY,
    "slurm": _SUBMITIT,
    "submitit_local": _SUBMITIT,
    "submitit_slurm": _SUBMITIT,
}
# And what a logger writes with.
LOGGER_LIBRARIES = {
    "tensorboard": ("tensorboardX", "pip install 'ffem-jax[tensorboard]'"),
    "mlflow": ("mlflow", "pip install 'ffem-jax[mlflow]'"),
}


class ConfigError(ValueError):
    """An override, a folder or a sweep that cannot be used. The message is one line and says what to do."""


@dataclass(frozen=True)
class LauncherSpec:
    """Where the trials of a sweep run. What a launcher has no use for, it ignores.

    jobs: trials at a time. cpus_per_job, gpus_per_job: asked of Ray and Slurm for each trial.
    partition, memory_gb, minutes: asked of Slurm; an empty partition is the cluster's default.
    """

    name: str = "local"
    jobs: int = 1
    cpus_per_job: int = 1
    gpus_per_job: int = 0
    partition: str | None = None
    memory_gb: int = 8
    minutes: int = 240

    def __post_init__(self) -> None:
        check_choice("launcher.name", self.name, LAUNCHERS)
        check_range("launcher.jobs", self.jobs, 1)
        check_range("launcher.cpus_per_job", self.cpus_per_job, 1)
        check_range("launcher.gpus_per_job", self.gpus_per_job, 0)
        check_range("launcher.memory_gb", self.memory_gb, 1)
        check_range("launcher.minutes", self.minutes, 1)


@dataclass(frozen=True)
class ApplicationSpec(TrialSpec):
    """The root of the config: a trial, how it is run, and where."""

    run: RunSpec = field(default_factory=RunSpec)
    launcher: LauncherSpec = field(default_factory=LauncherSpec)


# ------------------------------------------------------------------------------------ folders


def find_conf_dir() -> Path:
    """The folder of the config files: inside an installed package, beside it in a checkout."""
    return _find_shipped("conf")


def _find_shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the folder {name}/ of ffem_jax is missing; install the package again")


def find_sweeps(config_dir: Path | None = None) -> dict[str, Path]:
    """Every sweep by name; the user's own come before the shipped ones and hide those of the same name.

    Looks in `config_dir`/sweeps, then `config_dir`, then ./sweeps, then the package.
    """
    folders = [config_dir / "sweeps", config_dir] if config_dir else []
    sweeps: dict[str, Path] = {}
    for folder in [*folders, Path.cwd() / "sweeps", _find_shipped("sweeps")]:
        for path in sorted(folder.glob("*.yaml")):
            sweeps.setdefault(path.stem, path.resolve())
    return sweeps


def find_sweep(name: str, config_dir: Path | None = None) -> Path:
    """The file of the sweep `name`. Raises ConfigError naming the sweeps there are."""
    sweeps = find_sweeps(config_dir)
    if name not in sweeps:
        raise ConfigError(
            f"there is no sweep {name!r};{suggest(name, sweeps)} choose one of: {', '.join(sorted(sweeps))}, "
            "or write your own as sweeps/NAME.yaml here or under --config-dir DIR"
        )
    return sweeps[name]


def read_question(path: Path) -> str:
    """The first line of a sweep's head: the question it asks."""
    lines = (line.lstrip("# ").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    return next((line for line in lines if line and not line.startswith("@package")), "")


def list_groups() -> dict[str, list[str]]:
    """The choices of every config group of `conf/`, read from the file names."""
    folders = [folder for folder in sorted(find_conf_dir().iterdir()) if folder.is_dir()]
    choices = {
        folder.name: sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        for folder in folders
    }
    return {name: files for name, files in choices.items() if files}


# ---------------------------------------------------------------------------------- composing


def register_schema() -> None:
    """Put ApplicationSpec into Hydra's ConfigStore, from where conf/config.yaml takes it."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    node = OmegaConf.structured(ApplicationSpec)
    make_writable(node)
    ConfigStore.instance().store(name=SCHEMA_NAME, node=node)


def make_writable(node: Any) -> None:
    """Let the values of `node`, and of all below it, be changed."""
    # OmegaConf takes `frozen` for read-only and then refuses the values of conf/ as well.
    from omegaconf import DictConfig, ListConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    names = node if isinstance(node, DictConfig) else range(len(node))
    for child in (node._get_node(name) for name in names):
        if isinstance(child, DictConfig | ListConfig) and not child._is_none():
            make_writable(child)


def register_sweep(name: str, path: Path) -> None:
    """Make the file `path` the choice `name` of the config group `sweep`, from wherever it lies.

    Raises ConfigError where the file is no YAML mapping.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    try:
        node = OmegaConf.load(path)
    except (OSError, YAMLError) as error:
        raise ConfigError(f"the sweep {path} cannot be read: {to_line(str(error))}") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"the sweep {path} must be a mapping, with hydra.sweeper.params")
    ConfigStore.instance().store(group=SWEEP_GROUP, name=name, node=node, package="_global_")


class Composer:
    """Composes configs inside `open_composer`; `search_path` is the override that adds the user's folder."""

    def __init__(self, search_path: Sequence[str]) -> None:
        from hydra.core.global_hydra import GlobalHydra

        self.loader = GlobalHydra.instance().config_loader()
        self.search_path = list(search_path)

    def compose(self, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
        """The config with its `hydra` node. Raises ConfigError where Hydra refuses an override."""
        from hydra.errors import HydraException
        from hydra.types import RunMode
        from omegaconf.errors import OmegaConfBaseException

        try:
            return self.loader.load_configuration(
                config_name=CONFIG_NAME,
                overrides=[*self.search_path, *self.write_out_rows(overrides)],
                run_mode=RunMode.MULTIRUN if multirun else RunMode.RUN,
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain_error(error)) from error

    def write_out_rows(self, overrides: Sequence[str]) -> list[str]:
        """Overrides of single rows, `arch.stages.2.repeats=3`, as one of the whole stage table, behind the others.

        OmegaConf takes rows of frozen dataclasses for read-only. Raises ConfigError for a row that is not there.
        """
        rows = [match for override in overrides if (match := STAGE_ROW.fullmatch(override))]
        if not rows:
            return list(overrides)
        others = [override for override in overrides if not STAGE_ROW.fullmatch(override)]
        table = [dict(row) for row in self.compose(others).arch.stages]
        for match in rows:
            number, field, value = int(match[1]), match[2], match[3]
            if number >= len(table):
                raise ConfigError(f"arch.stages has no row {number}; its rows are 0 to {len(table) - 1}")
            table[number][field] = value
        written = ",".join("{" + ",".join(f"{field}:{value}" for field, value in row.items()) + "}" for row in table)
        return [*others, f"arch.stages=[{written}]"]

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Overrides, parsed and checked: each names a key or a choice that exists. Raises ConfigError otherwise."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        parser, parsed = OverridesParser.create(config_loader=self.loader), []
        for line in overrides:
            try:
                parsed.append(parser.parse_override(line))
            except HydraException as error:
                raise ConfigError(f"{line!r} cannot be read as key=value: {explain_error(error)}") from error
        for override in parsed:
            self._check(override)
        return parsed

    def make_context(self, config: DictConfig) -> Any:
        """What Hydra's launchers ask for, with `config` as Hydra's own."""
        from hydra._internal.callbacks import Callbacks
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import HydraContext

        HydraConfig.instance().set_config(config)
        return HydraContext(config_loader=self.loader, callbacks=Callbacks(config))

    def list_choices(self, group: str) -> list[str]:
        """The configs of `group`, those one folder deeper too; empty where it is no group."""
        if "." in group:  # the key of a value: Hydra would look through all folders for each
            return []
        from hydra.core.object_type import ObjectType

        def look(group: str, kind: ObjectType) -> list[str]:
            return self.loader.get_group_options(
                group, results_filter=kind, config_name=CONFIG_NAME, overrides=self.search_path
            )

        deeper = (
            f"{folder}/{name}"
            for folder in look(group, ObjectType.GROUP)
            for name in look(f"{group}/{folder}", ObjectType.CONFIG)
        )
        return [*look(group, ObjectType.CONFIG), *deeper]

    def _check(self, override: Override) -> None:
        key = override.key_or_group
        choices = self.list_choices(key)
        # A launcher whose plugin is missing is no choice of hydra/launcher, so its own message comes first.
        if choices or key == "hydra/launcher":
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
            for value in values:
                if key in ("launcher", "hydra/launcher"):
                    check_launcher(value)
                elif key == "logger":
                    check_logger(value)
                may_be_left_out = value is None and (key == "attention" or key.startswith("hydra/"))
                if value not in choices and not may_be_left_out and not override.is_delete():
                    listed = f"choose one of: {', '.join(sorted(choices))}"
                    raise ConfigError(f"{key}={value} is not known;{suggest(str(value), choices)} {listed}")
        elif not override.is_delete() and not key.startswith(("hydra.", "hydra/")):
            check_key(key)


@contextmanager
def open_composer(config_dir: Path | None = None) -> Iterator[Composer]:
    """Hydra over `conf/` and, behind it, the user's `config_dir`. Raises ConfigError where that is no folder."""
    from hydra import initialize_config_dir

    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder")
    register_schema()
    search_path = [f"hydra.searchpath=[{quote_value(config_dir.resolve().as_uri())}]"] if config_dir else []
    with initialize_config_dir(str(find_conf_dir()), job_name="ffem", version_base="1.3"):
        yield Composer(search_path)


def to_application(config: DictConfig) -> ApplicationSpec:
    """The composed config as checked, frozen dataclasses.

    Raises SpecError for a value outside its choices and ConfigError for a key or a type that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        names = [f.name for f in dataclasses.fields(ApplicationSpec)]
        # Without the `hydra` node, which belongs to no spec; the children become the dataclasses they are typed as.
        values: Any = OmegaConf.to_object(OmegaConf.masked_copy(config, names))
        return ApplicationSpec(**values)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_error(error)) from error


def to_specs(config: DictConfig) -> tuple[TrialSpec, RunSpec]:
    """The trial and the run that a composed config means; raises as `to_application` does."""
    application = to_application(config)
    trial = TrialSpec(**{f.name: getattr(application, f.name) for f in dataclasses.fields(TrialSpec)})
    return trial, application.run


# ----------------------------------------------------------------------------------- messages


def check_launcher(name: Any) -> None:
    """Raise ConfigError where the launcher `name` needs a plugin that is not installed."""
    module, command = LAUNCHER_PLUGINS.get(name, ("", ""))
    try:
        missing = bool(module) and importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # hydra_plugins itself is missing
        missing = True
    if missing:
        raise ConfigError(f"launcher={name} needs a Hydra plugin that is not installed; {command}")


def check_logger(name: Any) -> None:
    """Raise ConfigError where the library that the logger `name` writes with is not installed."""
    module, command = LOGGER_LIBRARIES.get(name, ("json", ""))
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"logger={name} needs {module}, which is not installed; {command}")


def check_key(key: str) -> None:
    """Raise ConfigError unless the dotted `key` is one of the schema's, naming those it could be."""
    node: Any = ApplicationSpec()
    parents: list[str] = []
    for part in key.split("."):
        if parents == ["arch", "stages"] and part.isdigit():
            # Which rows there are depends on the network; they all have the same columns.
            parents.append(part)
            node = StageSpec()
            continue
        if isinstance(node, tuple):
            raise ConfigError(
                f"{key}: {'.'.join(parents)} is a list; give it whole, or a row's value as arch.stages.0.channels"
            )
        if not dataclasses.is_dataclass(node):
            raise ConfigError(f"{key} is not known; {'.'.join(parents)} is a value and has no keys")
        names = [f.name for f in dataclasses.fields(node)]
        if not parents:
            names += [group for group in list_groups() if group not in names]
        if part not in names:
            where = ".".join(parents) or "the config"
            raise ConfigError(f"{key} is not known;{suggest(part, names)} {where} has: {', '.join(names)}")
        parents.append(part)
        node = getattr(node, part, None)


def check_writable(folder: Path, option: str) -> None:
    """Raise ConfigError unless files can be made in `folder`, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror}); choose another with {option}") from error
