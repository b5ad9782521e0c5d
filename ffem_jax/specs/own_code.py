"""User plugins: where Python files are searched for and how they are loaded.

Importing a file registers its attentions, blocks, losses or data sets. The search covers

- the top of the folder `--config-dir`: `*.py` files that import ffem_jax;
- `FFEM_PLUGINS`: files, or folders as above, separated as in PATH. `--config-dir` is added to it, so that worker
  processes find the same files as their parent;
- installed packages: every entry point of the group `ffem_jax.plugins`, or of the group of one registry, such as
  `ffem_jax.attentions`.

Each file is loaded once per process, and only when a kind is requested that the package does not define.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from ffem_jax.errors import FfemError

VARIABLE = "FFEM_PLUGINS"
GROUPS = ("ffem_jax.plugins", "ffem_jax.attentions", "ffem_jax.blocks", "ffem_jax.losses", "ffem_jax.data_sets")
# A folder of configs may contain other scripts, and loading one would run it.
_IMPORTS_US = re.compile(r"^\s*(?:from|import)\s+ffem_jax\b", re.MULTILINE)

_loaded: set[object] = set()


class PluginError(FfemError):
    """A user file or package cannot be loaded. The message is one line and names it."""


def add_folder(folder: Path) -> None:
    """Load the Python files at the top of `folder`, in this process and in those it starts.

    Raises:
        PluginError: the message names the file that fails.
    """
    if not find_files(folder):
        return
    known = [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    place = str(folder.resolve())
    if place not in known:
        os.environ[VARIABLE] = os.pathsep.join([*known, place])
    for path in find_files(folder):
        _load_file(path)


def load_plugins() -> None:
    """Load the plugins in `FFEM_PLUGINS` and in installed packages, each once per process.

    Raises:
        PluginError: the message names the file or the entry point that fails.
    """
    import importlib.metadata  # takes as long as all other imports of a short command

    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        place = Path(entry).expanduser()
        if not place.exists():
            raise PluginError(f"{VARIABLE} names {entry}, which does not exist; name Python files or folders of them")
        for path in find_files(place) if place.is_dir() else [place]:
            _load_file(path)
    for group in GROUPS:
        for point in importlib.metadata.entry_points(group=group):
            if point not in _loaded:
                try:
                    point.load()
                except Exception as error:
                    raise PluginError(_explain(f"the entry point {point.name} = {point.value}", error)) from error
                _loaded.add(point)


def find_files(folder: Path) -> list[Path]:
    """Return the Python files at the top of `folder` that import this package."""
    return [path for path in sorted(folder.glob("*.py")) if _IMPORTS_US.search(path.read_text(errors="replace"))]


def _load_file(path: Path) -> None:
    path = path.resolve()
    if path in _loaded:
        return
    # Two files with one name are two modules.
    name = f"ffem_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file; {VARIABLE} and --config-dir load files that end in .py")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses look up their module.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(_explain(str(path), error)) from error
    _loaded.add(path)


def _explain(what: str, error: Exception) -> str:
    if isinstance(error, FfemError):
        return f"{what} cannot be loaded: {error}"
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        # The deepest frame in the file itself.
        line = trace.tb_lineno if what.endswith(trace.tb_frame.f_code.co_filename) else line
        trace = trace.tb_next
    return f"{what} cannot be loaded: {type(error).__name__}: {error}{f' (line {line})' if line else ''}"


def compute_code_digest(implementation: Any) -> str:
    """Hash the source file of a class, function or `module:name` to 16 hexadecimal digits.

    Empty for this package's own code and for code without a file. It is part of the key of a trial that uses the code,
    so that a changed file means a different trial.
    """
    module = implementation.partition(":")[0] if isinstance(implementation, str) else implementation.__module__
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    try:
        loaded = sys.modules.get(module) or importlib.import_module(module)
        text = Path(loaded.__file__ or "").read_text(encoding="utf-8", errors="replace")
    except (ImportError, AttributeError, OSError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
