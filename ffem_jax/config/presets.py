"""The networks that have names: what `conf/arch/` says, without Hydra."""

from __future__ import annotations

import yaml

from ffem_jax.config.compose import find_conf_dir
from ffem_jax.records.view import read_arch
from ffem_jax.specs.architecture import ArchSpec


def load_presets() -> dict[str, ArchSpec]:
    """Every file of conf/arch as the network it means, by its name."""
    files = sorted((find_conf_dir() / "arch").glob("*.yaml"))
    return {path.stem: read_arch(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in files}


PRESETS = load_presets()
