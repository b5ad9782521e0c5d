"""What a launcher or a logger needs beside this package: the module it is found by, the command that installs it."""

from __future__ import annotations

import importlib.util
from typing import Any

from ffem_jax.config.overrides import ConfigError
from ffem_jax.errors import describe_install
from ffem_jax.specs.run import LOGGERS

# Keys are choices of `launcher` and `hydra/launcher`.
_RAY = ("hydra_plugins.hydra_ray_launcher", describe_install("ray"))
_SUBMITIT = ("hydra_plugins.hydra_submitit_launcher", describe_install("slurm"))
LAUNCHER_PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "pip install hydra-joblib-launcher"),
    "ray": _RAY,
    "ray_aws": _RAY,
    "slurm": _SUBMITIT,
    "submitit_local": _SUBMITIT,
    "submitit_slurm": _SUBMITIT,
}


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
    logger = LOGGERS.kinds.get(name)
    if logger and logger.library and importlib.util.find_spec(logger.library) is None:
        raise ConfigError(f"logger={name} needs {logger.library}, which is not installed; {logger.install}")
