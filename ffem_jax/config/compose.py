"""From overrides to specs: the structured config, the folders it is composed from, errors in one line.

Hydra composes `conf/` over the schema below; `to_specs` turns the result into the frozen dataclasses of
`specs`. Hydra is imported where it is used, so that `ffem --help` does not wait for it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.config.overrides import (
    FOLDERS,
    ConfigError,
    explain_error,
    list_values,
    quote_value,
    refuse_sweeps,
    settle_override,
    suggest,
    to_line,
)
from ffem_jax.config.plugins import check_launcher, check_logger
from ffem_jax.config.schema import ApplicationSpec, check_key, check_listed, explain_word
from ffem_jax.specs.fields import name_below
from ffem_jax.specs.own_code import add_folder
from ffem_jax.specs.trial import RunSpec, TrialSpec

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONFIG_NAME = "config"
SCHEMA_NAME = "application_schema"
SWEEP_GROUP = "sweep"
AUTO_DIR = "auto"  # what hydra.run.dir and hydra.sweep.dir say until the user chooses
# One value of one row of the stage table: its number from 0, its column, the value.
STAGE_ROW = re.compile(r"arch\.stages\.(\d+)\.(\w+)=(.*)")


def find_conf_dir() -> Path:
    """The folder of the config files: inside an installed package, beside it in a checkout."""
    return _find_shipped("conf")


def _find_shipped(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
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
    """The question that a sweep's head begins with: its first sentence, over as many lines as it takes."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    question: list[str] = []
    for line in (line.lstrip("# ").strip() for line in text.splitlines() if line[:1] == "#"):
        if line.startswith("@package") or not (line or question):
            continue
        if not line:
            break
        question.append(line)
        if line.endswith(("?", ".", "!", ":")):
            break
    return " ".join(question)


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

    store = ConfigStore.instance()
    if f"{SCHEMA_NAME}.yaml" not in store.repo:  # it stays, and making it takes as long as composing a config
        node = OmegaConf.structured(ApplicationSpec)
        make_writable(node)
        store.store(name=SCHEMA_NAME, node=node)


def make_writable(node: Any) -> None:
    """Let the values of `node`, and of all below it, be changed: OmegaConf takes `frozen` for read-only."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig) and node._metadata.object_type is dict:
        OmegaConf.set_struct(node, False)  # its keys are of somebody's own
    names = node if isinstance(node, DictConfig) else range(len(node))
    for child in (node._get_node(name) for name in names):
        if isinstance(child, DictConfig | ListConfig) and not child._is_none():
            make_writable(child)


def register_sweep(name: str, path: Path) -> None:
    """Make the file `path` the choice `name` of the config group `sweep`, from wherever it lies; see `load_sweep`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(group=SWEEP_GROUP, name=name, node=load_sweep(path), package="_global_")


def load_sweep(path: Path) -> DictConfig:
    """The sweep's file. Raises ConfigError where it is no YAML mapping in UTF-8."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        node = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the sweep {path} is not in UTF-8: {error.reason} at byte {error.start}; save it so"
        ) from None
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"the sweep {path} cannot be read: {to_line(str(error))}") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"the sweep {path} must be a mapping, with hydra.sweeper.params")
    params = OmegaConf.select(node, "hydra.sweeper.params")
    values: Any = OmegaConf.to_container(params) if isinstance(params, DictConfig) else {}
    for key, value in values.items():
        check_listed(key, value, list_groups())
    return node


class Composer:
    """Composes configs inside `open_composer`; `search_path` is the override that adds the user's folder.

    Overrides are taken as the user typed them, and settled (`overrides.settle_override`) wherever they come in.
    """

    def __init__(self, search_path: Sequence[str]) -> None:
        from hydra.core.global_hydra import GlobalHydra

        from ffem_jax.config.loader import KeepingLoader

        self.loader = KeepingLoader(GlobalHydra.instance().config_loader().get_search_path())
        self.search_path = list(search_path)

    def register_sweep(self, name: str, path: Path) -> None:
        """Make the sweep's file `path` the choice `name` of the config group `sweep`; see `register_sweep`."""
        register_sweep(name, path)
        self.loader.forget()

    def compose(self, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
        """The config with its `hydra` node. Raises ConfigError where Hydra refuses an override or a file."""
        from hydra.errors import HydraException
        from hydra.types import RunMode
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        written = self.write_out_rows(overrides)
        if not multirun:
            refuse_sweeps(written)
        try:
            config = self.loader.load_configuration(
                config_name=CONFIG_NAME,
                overrides=[*self.search_path, *written],
                run_mode=RunMode.MULTIRUN if multirun else RunMode.RUN,
            )
            for node in (config.hydra.run, config.hydra.sweep):
                _ = node.dir  # an interpolation of nothing is told here
            return config
        except UnicodeDecodeError as error:
            raise ConfigError(f"a config file is not in UTF-8 ({error}); save it so") from error
        except YAMLError as error:
            raise ConfigError(f"a config file is no YAML: {to_line(str(error))}") from error
        # ValueError: what Hydra raises for the choice of a group that is no text.
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(explain_error(error)) from error

    def settle(self, overrides: Sequence[str]) -> list[str]:
        """`overrides` as Hydra reads them. Raises ConfigError for one that cannot be read."""
        for line in overrides:
            if "=" not in line and not line.startswith("~"):
                raise ConfigError(
                    explain_word(line, {group: self.list_choices(group) for group in list_groups()}, find_sweeps())
                )
        return [settle_override(line, ApplicationSpec) for line in overrides]

    def write_out_rows(self, overrides: Sequence[str]) -> list[str]:
        """Settled overrides, those of single rows, `arch.stages.2.repeats=3`, as one of the whole stage table, behind
        the others.

        OmegaConf takes rows of frozen dataclasses for read-only. Raises ConfigError for a row that is not there.
        """
        overrides = self.settle(overrides)
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

        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(self.settle(overrides))
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

        look = functools.partial(self.loader.get_group_options, config_name=CONFIG_NAME, overrides=self.search_path)
        folders = look(group, ObjectType.GROUP)
        deeper = [f"{one}/{name}" for one in folders for name in look(f"{group}/{one}", ObjectType.CONFIG)]
        return [*look(group, ObjectType.CONFIG), *deeper]

    def _check(self, override: Override) -> None:
        key = override.key_or_group
        choices = self.list_choices(key)
        # A launcher whose plugin is missing is no choice of hydra/launcher, so its own message comes first.
        if choices or key == "hydra/launcher":
            values = list_values(override)
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
            check_key(key, list_groups())


@contextmanager
def open_composer(config_dir: Path | None = None) -> Iterator[Composer]:
    """Hydra over `conf/` and, behind it, the user's `config_dir`.

    Raises ConfigError where that is no folder, or holds a file of a config group that Hydra would misread.
    """
    from hydra import initialize_config_dir

    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"--config-dir {config_dir} is not a folder")
        if "${" in str(config_dir.resolve()):
            raise ConfigError(f"--config-dir {config_dir}: Hydra finds no folder with ${{ in its path; rename it")
        check_encoding(config_dir)
        add_folder(config_dir)
    register_schema()
    # Hydra takes what follows file:// for the path as it is: escapes of a URL would be part of the name.
    search_path = [f"hydra.searchpath=[{quote_value(f'file://{config_dir.resolve()}')}]"] if config_dir else []
    with initialize_config_dir(str(find_conf_dir()), job_name="ffem", version_base="1.3"):
        yield Composer(search_path)


def check_encoding(config_dir: Path) -> None:
    """Raise ConfigError for a file of a config group below `config_dir` that is not plain UTF-8.

    Hydra would end in a traceback or, where a byte-order mark stands before `# @package`, pass over that line.
    """
    for group in list_groups():
        for path in sorted((config_dir / group).rglob("*.yaml")):
            try:
                marked = path.read_text(encoding="utf-8").startswith("\ufeff")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path} is not in UTF-8: {error.reason} at byte {error.start}; save it so") from None
            if marked:
                raise ConfigError(f"{path} begins with a byte-order mark; save it as UTF-8 without one")


def to_application(config: DictConfig) -> ApplicationSpec:
    """The composed config as checked, frozen dataclasses.

    Raises SpecError for a value outside its choices and ConfigError for a key or a type that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        load_searched()
        names = [f.name for f in dataclasses.fields(ApplicationSpec) if f.name != "pretrain"]
        # Without the `hydra` node, which belongs to no spec; the children become the dataclasses they are typed as.
        values: Any = OmegaConf.to_object(OmegaConf.masked_copy(config, names))
        with name_below("pretrain"):
            values["pretrain"] = OmegaConf.to_object(config.pretrain)
        return ApplicationSpec(**values)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_error(error)) from error


def load_searched() -> None:
    """Load people's own Python files for a job in another process: its config says where its parent looked."""
    from hydra.core.hydra_config import HydraConfig

    searched = HydraConfig.get().searchpath if HydraConfig.initialized() else []
    for place in searched or []:
        folder = Path(str(place).removeprefix("file://"))
        if str(place).startswith("file://") and folder.is_dir():
            add_folder(folder)


def to_specs(config: DictConfig, *, as_typed: bool = False) -> tuple[TrialSpec, RunSpec]:
    """The trial and the run that a composed config means; raises as `to_application` does.

    The folders of faces are absolute, so that they mean the same people in any working folder. as_typed: as the
    config has them, which a job's folder is named after: a trial begun before is found again.
    """
    application = to_application(config)
    trial = TrialSpec(**{f.name: getattr(application, f.name) for f in dataclasses.fields(TrialSpec)})
    return trial if as_typed else place_faces(trial), application.run


def place_faces(trial: TrialSpec) -> TrialSpec:
    """`trial` with the folders of its faces, and its teacher's path, as absolute paths."""
    return functools.reduce(_place, FOLDERS, trial)


def _place(spec: Any, setting: str) -> Any:
    """`spec` with what `setting` names, unless it is empty, as an absolute path."""
    name, _, rest = setting.partition(".")
    value = getattr(spec, name)
    # Path.expanduser raises where there is no such user: `~x` is then the folder's name.
    placed = _place(value, rest) if rest else value and str(Path(os.path.expanduser(value)).absolute())
    return dataclasses.replace(spec, **{name: placed})


def write_places(trial: TrialSpec) -> list[str]:
    """The overrides that give the folders of `trial`'s faces to a job, whatever folder it works in."""
    used = [name for name in FOLDERS if trial.pretraining or not name.startswith("pretrain.")]
    roots: list[Any] = [functools.reduce(getattr, name.split("."), place_faces(trial)) for name in used]
    return [f"{name}={quote_value(root)}" for name, root in zip(used, roots, strict=True) if root]


def check_writable(folder: Path, option: str) -> None:
    """Raise ConfigError unless files can be made in `folder`, which is made where it is missing."""
    if option.startswith("hydra.") and "${" in str(folder):
        raise ConfigError(f"cannot work in {folder}: Hydra reads ${{ as an interpolation; choose another with {option}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror}); choose another with {option}") from error
