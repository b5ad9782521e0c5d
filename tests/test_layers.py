"""The layers of ARCHITECTURE.md, checked by parsing imports: allowed imports, and the size limit of a module."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "ffem_jax"

HOUSE = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]


def read_floors(house: str) -> dict[str, int]:
    """Package (a folder, or a top-level module) -> its layer, from the list in ARCHITECTURE.md."""
    floors, floor = {}, 0
    for found in re.finditer(r"^(?:L(\d)|  )  (\w+)(?:/|\.py) ", house, re.MULTILINE):
        floor = int(found[1]) if found[1] else floor
        floors[found[2]] = floor
    return floors


LAYERS = read_floors(HOUSE)

# Rooms that are imported to read records or to print a help text: seconds of import time would be felt.
LIGHT_ROOMS = ("specs", "records", "text", "config", "metrics", "analysis", "figures", "reports", "cli")
LIGHT_MODULES = tuple(
    f"ffem_jax.{name}" for name in ("machine.processor", "training.loggers", "runs.progress", "runs.sweep")
)
# Nothing but a class of Hydra's, imported where a config is composed.
OF_HYDRA = ("ffem_jax.config.loader",)
HEAVY_LIBRARIES = (
    "jax", "flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "hydra", "matplotlib", "torch", "scipy",
    "fastapi", "sqlalchemy", "uvicorn", "vl_convert", "jinja2", "pandas", "tensorboardX", "mlflow",
)  # fmt: skip

# The metrics are what other projects may lift out, and what the server will import: NumPy and nothing else.
NUMPY_ONLY = ("metrics",)

# What the server may see: no decoder of pictures and no network, so that an image cannot get in.
SERVER_ROOMS = ("errors", "moved", "specs", "records", "text", "metrics", "serve")
SERVER_LIBRARIES = ("numpy", "fastapi", "starlette", "pydantic", "sqlalchemy", "limits", "threadpoolctl", "uvicorn")

LINE_LIMIT = 400

FORBIDDEN_NAMES = ("utils", "util", "helpers", "helper", "misc", "common", "manager", "tools")

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("conf", "sweeps"))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module: str) -> str | None:
    """The room of a module; None for the package itself, which holds the version alone."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imported_names(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Every dotted name the source imports, those inside functions too; relative imports made absolute."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") if is_package else module.split(".")[:-1]
                parents = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def own_imports(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the package that `module` imports, itself left out."""
    found = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py"):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {module}


def breaches(modules: dict[str, Path], layers: dict[str, int]) -> list[str]:
    """One line for each import that goes up, and one for a cycle."""
    graph = {module: own_imports(module, path, modules) for module, path in modules.items()}
    found = []
    rooms: dict[str, set[str]] = {}
    for module, imported in sorted(graph.items()):
        room = room_of(module)
        for target in sorted(imported):
            other = room_of(target)
            if room is None and other not in (None, "moved"):
                found.append(f"{module} must import nothing of the package, but imports {target}")
            elif room is not None and other is not None and other != room:
                rooms.setdefault(room, set()).add(other)
                if layers.get(other, 0) > layers.get(room, 0):
                    found.append(f"{module} (layer {layers[room]}) imports {target} (layer {layers[other]})")
    for wanted in (graph, rooms):
        try:
            graphlib.TopologicalSorter(wanted).prepare()
        except graphlib.CycleError as error:
            found.append(f"cycle: {' -> '.join(error.args[1])}")
    return found


def test_every_module_has_a_layer() -> None:
    rooms = {room for room in map(room_of, MODULES) if room is not None}
    assert rooms - set(LAYERS) == set(), "add the package to the list in ARCHITECTURE.md"
    assert set(LAYERS) - rooms == set(), "ARCHITECTURE.md lists packages that do not exist"


def test_architecture_names_every_module() -> None:
    words = set(re.findall(r"\w+", HOUSE))
    stems = {path.parent.name if path.stem == "__init__" else path.stem for path in FILES} - {"ffem_jax", "__main__"}
    assert stems - words == set(), "add the module to the list in ARCHITECTURE.md"


def test_imports_go_down_the_layers_and_in_no_cycle() -> None:
    assert breaches(MODULES, LAYERS) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"low": "import ffem_jax.high"}, "ffem_jax.low (layer 0) imports ffem_jax.high (layer 1)"),
        ({"low": "def f():\n    from ffem_jax import high"}, "ffem_jax.low (layer 0) imports ffem_jax.high (layer 1)"),
        ({"low": "from . import high"}, "ffem_jax.low (layer 0) imports ffem_jax.high (layer 1)"),
        ({"high": "from ffem_jax.side import X", "side": "from .high import Y"}, "cycle"),
        ({"high": "from ffem_jax.low import X", "side": "import ffem_jax.high"}, None),
    ],
)
def test_the_check_sees_a_breach(tmp_path: Path, sources: dict[str, str], expected: str | None) -> None:
    modules = {"ffem_jax": tmp_path / "__init__.py"}
    modules |= {f"ffem_jax.{name}": tmp_path / f"{name}.py" for name in ("low", "high", "side")}
    for module, path in modules.items():
        path.write_text(sources.get(module.rpartition(".")[2], ""))
    found = breaches(modules, {"low": 0, "high": 1, "side": 1})
    assert (found == []) if expected is None else any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_stays_small_and_is_named_after_its_job(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINE_LIMIT, f"{relative} has {lines} lines of at most {LINE_LIMIT}: find the second job in it"
    words = {word for part in relative.with_suffix("").parts for word in part.split("_")}
    assert not words & set(FORBIDDEN_NAMES), f"{relative}: name it after what it does"


@pytest.mark.parametrize("room", NUMPY_ONLY)
def test_a_room_of_plain_arrays_imports_numpy_and_nothing_else(room: str) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "ffem_jax"}
    for module, path in MODULES.items():
        if room_of(module) == room:
            names = imported_names(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py")
            assert {name.partition(".")[0] for name in names} <= allowed, module


def test_the_server_sees_arrays_and_no_pictures() -> None:
    server = {module: path for module, path in MODULES.items() if room_of(module) == "serve"}
    assert server
    allowed = {*sys.stdlib_module_names, *SERVER_LIBRARIES, "ffem_jax"}
    for module, path in server.items():
        assert {room_of(target) for target in own_imports(module, path, MODULES)} <= {*SERVER_ROOMS, None}, module
        names = imported_names(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py")
        assert {name.partition(".")[0] for name in names} <= allowed, module


def test_light_rooms_import_no_heavy_library() -> None:
    light = [module for module in MODULES if room_of(module) in (None, *LIGHT_ROOMS) and "__main__" not in module]
    light = [module for module in light if module not in OF_HYDRA] + [*LIGHT_MODULES]
    script = (
        "import importlib, sys\n"
        f"for module in {light!r}:\n"
        "    importlib.import_module(module)\n"
        f"    loaded = [name for name in {HEAVY_LIBRARIES!r} if name in sys.modules]\n"
        "    if loaded: sys.exit(f'importing {module} imports {loaded}')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
