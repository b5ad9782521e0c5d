"""From overrides to specs: the structured config, its search folders, errors in one line.

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
AUTO_DIR = "auto"  # value of hydra.run.dir and hydra.sweep.dir unless the user sets them
# Override of one value in the stage table: row number from 0, column, value.
STAGE_ROW = re.compile(r"arch\.stages\.(\d+)\.(\w+)=(.*)")


def find_conf_dir() -> Path:
    """Return the folder of the config files: inside an installed package, beside the package in a checkout."""
    return _find_shipped("conf")


def _find_shipped(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the folder {name}/ of ffem_jax is missing; install the package again")


def find_sweeps(config_dir: Path | None = None) -> dict[str, Path]:
    """Return every sweep by name; the user's sweeps override shipped ones of the same name.

    Looks in `config_dir`/sweeps, then `config_dir`, then ./sweeps, then the package.
    """
    folders = [config_dir / "sweeps", config_dir] if config_dir else []
    sweeps: dict[str, Path] = {}
    for folder in [*folders, Path.cwd() / "sweeps", _find_shipped("sweeps")]:
        for path in sorted(folder.glob("*.yaml")):
            sweeps.setdefault(path.stem, path.resolve())
    return sweeps


def find_sweep(name: str, config_dir: Path | None = None) -> Path:
    """Return the file of the sweep `name`. Raises ConfigError, which lists the sweeps."""
    sweeps = find_sweeps(config_dir)
    if name not in sweeps:
        raise ConfigError(
            f"there is no sweep {name!r};{suggest(name, sweeps)} choose one of: {', '.join(sorted(sweeps))}, "
            "or write your own as sweeps/NAME.yaml here or under --config-dir DIR"
        )
    return sweeps[name]


def read_question(path: Path) -> str:
    """Return the question at the top of a sweep's file: its first sentence, which may span lines."""
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
    """Return the choices of every config group in `conf/`, from the file names."""
    folders = [folder for folder in sorted(find_conf_dir().iterdir()) if folder.is_dir()]
    choices = {
        folder.name: sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        for folder in folders
    }
    return {name: files for name, files in choices.items() if files}


# ---------------------------------------------------------------------------------- composing


def register_schema() -> None:
    """Register ApplicationSpec in Hydra's ConfigStore, where conf/config.yaml finds it."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    if f"{SCHEMA_NAME}.yaml" not in store.repo:  # it persists, and building it takes as long as composing a config
        node = OmegaConf.structured(ApplicationSpec)
        make_writable(node)
        store.store(name=SCHEMA_NAME, node=node)


def make_writable(node: Any) -> None:
    """Make `node` and its children writable: OmegaConf treats `frozen` as read-only."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig) and node._metadata.object_type is dict:
        OmegaConf.set_struct(node, False)  # its keys are user-defined
    names = node if isinstance(node, DictConfig) else range(len(node))
    for child in (node._get_node(name) for name in names):
        if isinstance(child, DictConfig | ListConfig) and not child._is_none():
            make_writable(child)


def register_sweep(name: str, path: Path) -> None:
    """Register the file `path`, in any folder, as the choice `name` of the config group `sweep`; see `load_sweep`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(group=SWEEP_GROUP, name=name, node=load_sweep(path), package="_global_")


def load_sweep(path: Path) -> DictConfig:
    """Load the sweep's file. Raises ConfigError unless it is a YAML mapping in UTF-8."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        node = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the sweep {path} is not in UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
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

    Overrides are accepted as typed by the user, and normalised (`overrides.settle_override`) on entry.
    """

    def __init__(self, search_path: Sequence[str]) -> None:
        from hydra.core.global_hydra import GlobalHydra

        from ffem_jax.config.loader import KeepingLoader

        self.loader = KeepingLoader(GlobalHydra.instance().config_loader().get_search_path())
        self.search_path = list(search_path)

    def register_sweep(self, name: str, path: Path) -> None:
        """Register the sweep's file `path` as the choice `name` of the config group `sweep`; see `register_sweep`."""
        register_sweep(name, path)
        self.loader.forget()

    def compose(self, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
        """Compose the config with its `hydra` node. Raises ConfigError if Hydra rejects an override or a file."""
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
                _ = node.dir  # a dangling interpolation raises here
            return config
        except UnicodeDecodeError as error:
            raise ConfigError(f"a config file is not in UTF-8 ({error}); save it as UTF-8") from error
        except YAMLError as error:
            raise ConfigError(f"a config file is not valid YAML: {to_line(str(error))}") from error
        # ValueError: raised by Hydra if the choice of a group is not text.
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(explain_error(error)) from error

    def settle(self, overrides: Sequence[str]) -> list[str]:
        """Parse `overrides` with Hydra. Raises ConfigError for one that cannot be parsed."""
        for line in overrides:
            if "=" not in line and not line.startswith("~"):
                raise ConfigError(
                    explain_word(line, {group: self.list_choices(group) for group in list_groups()}, find_sweeps())
                )
        return [settle_override(line, ApplicationSpec) for line in overrides]

    def write_out_rows(self, overrides: Sequence[str]) -> list[str]:
        """Return normalised overrides, with those of single rows, `arch.stages.2.repeats=3`, merged into one override
        of the stage table at the end.

        OmegaConf treats rows of frozen dataclasses as read-only. Raises ConfigError for a missing row.
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
        """Parse overrides and check that their keys and choices exist. Raises ConfigError otherwise."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(self.settle(overrides))
        for override in parsed:
            self._check(override)
        return parsed

    def make_context(self, config: DictConfig) -> Any:
        """Return the context that Hydra's launchers need, with `config` as Hydra's own."""
        from hydra._internal.callbacks import Callbacks
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import HydraContext

        HydraConfig.instance().set_config(config)
        return HydraContext(config_loader=self.loader, callbacks=Callbacks(config))

    def list_choices(self, group: str) -> list[str]:
        """Return the configs of `group`, including one folder deeper; empty if there is no such group."""
        if "." in group:  # the key of a value: Hydra would search all folders for it
            return []
        from hydra.core.object_type import ObjectType

        look = functools.partial(self.loader.get_group_options, config_name=CONFIG_NAME, overrides=self.search_path)
        folders = look(group, ObjectType.GROUP)
        deeper = [f"{one}/{name}" for one in folders for name in look(f"{group}/{one}", ObjectType.CONFIG)]
        return [*look(group, ObjectType.CONFIG), *deeper]

    def _check(self, override: Override) -> None:
        key = override.key_or_group
        choices = self.list_choices(key)
        # Checked first, because a launcher without its plugin is not a choice of hydra/launcher.
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
    """Start Hydra with `conf/` followed by the user's `config_dir` as search path.

    Raises ConfigError if that is not a folder, or contains a config-group file that Hydra would misread.
    """
    from hydra import initialize_config_dir

    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"--config-dir {config_dir} is not a folder")
        if "${" in str(config_dir.resolve()):
            raise ConfigError(f"--config-dir {config_dir}: Hydra cannot find a folder with ${{ in its path; rename it")
        check_encoding(config_dir)
        add_folder(config_dir)
    register_schema()
    # Hydra uses the text after file:// as a literal path: URL escapes would be part of the name.
    search_path = [f"hydra.searchpath=[{quote_value(f'file://{config_dir.resolve()}')}]"] if config_dir else []
    with initialize_config_dir(str(find_conf_dir()), job_name="ffem", version_base="1.3"):
        yield Composer(search_path)


def check_encoding(config_dir: Path) -> None:
    """Raise ConfigError for a file of a config group below `config_dir` that is not plain UTF-8.

    Hydra would fail with a traceback or, if a byte-order mark precedes `# @package`, ignore that line.
    """
    for group in list_groups():
        for path in sorted((config_dir / group).rglob("*.yaml")):
            try:
                marked = path.read_text(encoding="utf-8").startswith("\ufeff")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path} is not in UTF-8: {error.reason} at byte {error.start}; save it so") from None
            if marked:
                raise ConfigError(f"{path} starts with a byte-order mark; save it as UTF-8 without one")


def to_application(config: DictConfig) -> ApplicationSpec:
    """Convert the composed config to validated, frozen dataclasses.

    Raises SpecError for a value outside its choices and ConfigError for a key or a type that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        load_searched()
        names = [f.name for f in dataclasses.fields(ApplicationSpec) if f.name != "pretrain"]
        # Drop the `hydra` node, which belongs to no spec; the children become their declared dataclasses.
        values: Any = OmegaConf.to_object(OmegaConf.masked_copy(config, names))
        with name_below("pretrain"):
            values["pretrain"] = OmegaConf.to_object(config.pretrain)
        return ApplicationSpec(**values)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_error(error)) from error


def load_searched() -> None:
    """Load the user's Python files for a job in another process, from the folder given in its config."""
    from hydra.core.hydra_config import HydraConfig

    searched = HydraConfig.get().searchpath if HydraConfig.initialized() else []
    for place in searched or []:
        folder = Path(str(place).removeprefix("file://"))
        if str(place).startswith("file://") and folder.is_dir():
            add_folder(folder)


def to_specs(config: DictConfig, *, as_typed: bool = False) -> tuple[TrialSpec, RunSpec]:
    """Return the trial and the run of a composed config; raises as `to_application` does.

    Face folders become absolute, so that they are valid in any working folder. as_typed: keep them as given; a job's
    folder is named after these, so that an earlier trial is found again.
    """
    application = to_application(config)
    trial = TrialSpec(**{f.name: getattr(application, f.name) for f in dataclasses.fields(TrialSpec)})
    return trial if as_typed else place_faces(trial), application.run


def place_faces(trial: TrialSpec) -> TrialSpec:
    """Return `trial` with absolute paths for its faces and its teacher."""
    return functools.reduce(_place, FOLDERS, trial)


def _place(spec: Any, setting: str) -> Any:
    """Return `spec` with the path in `setting` made absolute, unless it is empty."""
    name, _, rest = setting.partition(".")
    value = getattr(spec, name)
    # Path.expanduser raises if there is no such user: `~x` is then a literal name.
    placed = _place(value, rest) if rest else value and str(Path(os.path.expanduser(value)).absolute())
    return dataclasses.replace(spec, **{name: placed})


def write_places(trial: TrialSpec) -> list[str]:
    """Return the overrides that pass the face folders of `trial` to a job in any working folder."""
    used = [name for name in FOLDERS if trial.pretraining or not name.startswith("pretrain.")]
    roots: list[Any] = [functools.reduce(getattr, name.split("."), place_faces(trial)) for name in used]
    return [f"{name}={quote_value(root)}" for name, root in zip(used, roots, strict=True) if root]


def check_writable(folder: Path, option: str) -> None:
    """Raise ConfigError unless `folder` is writable; create it if missing."""
    if option.startswith("hydra.") and "${" in str(folder):
        raise ConfigError(f"cannot work in {folder}: Hydra reads ${{ as an interpolation; choose another with {option}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror}); choose another with {option}") from error
