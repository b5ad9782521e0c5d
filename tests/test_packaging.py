"""What is shipped: a wheel that finds its config and its sweeps from any folder, pins that fit, no TensorFlow."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import ffem_jax

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_constraints() -> dict[str, Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {normalise(pin.name): pin for pin in pins}


# ---------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend itself: nothing is downloaded."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return path


# What a module reads or runs beside itself; whatever else lies in the package is there by mistake.
SHIPPED_ENDINGS = {".py", ".pyi", ".typed", ".bash", ".cjs", ".css", ".html", ".js"}
SHIPPED_NAMES = {"package.json", ".npmrc"}


def list_package_files() -> list[Path]:
    """The files of the package and of its Hydra plugin that an installation needs."""
    found = [
        path
        for folder in ("ffem_jax", "hydra_plugins")
        for path in (REPOSITORY / folder).rglob("*")
        if not {"node_modules", "__pycache__"} & set(path.parts)
        and ((path.suffix or path.name) in SHIPPED_ENDINGS or path.name in SHIPPED_NAMES)
    ]
    assert {"__init__.pyi", "py.typed", "page.html", "run_tfjs.cjs"} <= {path.name for path in found}
    return found


def test_the_wheel_holds_every_module_config_and_sweep_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    expected = {path.relative_to(REPOSITORY).as_posix() for path in list_package_files()}
    if shutil.which("c++") or shutil.which("g++"):
        expected.add("ffem_jax/kernels/libffem_kernels.so")
    for folder in ("conf", "sweeps"):
        shipped = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / folder).rglob("*.yaml")}
        assert shipped, f"{folder}/ is empty"
        expected |= {f"ffem_jax/{name}" for name in shipped}
    assert packed == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_an_installed_wheel_finds_its_files_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(installed)
    script = (
        "from ffem_jax.config.compose import find_conf_dir, find_sweep\n"
        "print(find_conf_dir())\n"
        "print(find_sweep('quickstart'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    package = installed / "ffem_jax"
    assert result.stdout.split() == [str(package / "conf"), str(package / "sweeps" / "quickstart.yaml")]


def read_metadata(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_string(archive.read(name).decode())


def test_the_wheel_is_ready_to_publish(wheel: Path) -> None:
    metadata = read_metadata(wheel)
    assert metadata["Version"] == ffem_jax.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert (REPOSITORY / "README.md").read_text(encoding="utf-8").strip() in str(metadata.get_payload())
    assert set(metadata.get_all("Provides-Extra") or []) == set(EXTRAS)
    classifiers = metadata.get_all("Classifier") or []
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)
    # An index refuses what does not stand in its list.
    known = pytest.importorskip("trove_classifiers").classifiers
    assert set(classifiers) <= known


def test_every_classifier_of_a_python_is_one_that_the_package_takes() -> None:
    least = int(PROJECT["requires-python"].removeprefix(">=3."))
    named = [int(line.rpartition(".")[2]) for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert named == list(range(least, max(named) + 1))


# ---------------------------------------------------------------------------------- install lines


def read_install_lines() -> dict[str, str]:
    """Every `pip install ...` of the package's messages and docstrings -> its file."""
    lines = {}
    for path in [*(REPOSITORY / "ffem_jax").rglob("*.py"), *(REPOSITORY / "conf").rglob("*.yaml")]:
        for words in re.findall(r"pip install ([^`\"\n)]+)", path.read_text(encoding="utf-8")):
            lines[words.strip().rstrip(".;, ")] = path.relative_to(REPOSITORY).as_posix()
    return lines


def find_fault(words: str) -> str:
    """What keeps the install line from working, or nothing."""
    if "'.[" in words:
        names = words.partition("[")[2].partition("]")[0]
        wanted = set() if names == "{extra}" else set(names.split(","))
        if wanted - set(EXTRAS):
            return f"there is no extra {wanted - set(EXTRAS)}"
        return "" if "-c constraints.txt" in words else "it takes no constraints"
    declared = {normalise(one.name) for one in [*CORE, *(one for lines in EXTRAS.values() for one in lines)]}
    names = {normalise(re.sub(r"\[.*", "", word.strip("'"))) for word in words.split() if not word.startswith("-")}
    return f"nothing here declares {names - declared}" if names - declared else ""


def test_every_install_line_of_a_message_works() -> None:
    lines = read_install_lines()
    assert len(lines) > 5
    assert {words: path for words, path in lines.items() if find_fault(words)} == {}


@pytest.mark.parametrize(
    "words", ["'ffem-jax[export]'", "-e '.[export]'", "-c constraints.txt -e '.[exprot]'", "ffem-jax", "pandsa"]
)
def test_the_check_of_install_lines_sees_a_fault(words: str) -> None:
    assert find_fault(words)


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "ffem = ffem_jax.cli:main" in archive.read(name).decode()


# ------------------------------------------------------------------------------------ the pins


def test_constraints_are_exact_versions_and_name_no_host() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@|--(index|extra-index|find-links|trusted)", text)
    for pin in read_constraints().values():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "*" not in specifier.version


@pytest.mark.parametrize("requirement", [*CORE, *EXTRAS["dev"]], ids=str)
def test_a_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    pin = read_constraints()[normalise(requirement.name)]
    (specifier,) = pin.specifier
    assert requirement.specifier.contains(specifier.version), f"{pin} is outside {requirement}"


def test_tensorflow_is_asked_for_by_the_benchmarks_alone() -> None:
    used = [*CORE, *(requirement for extra, lines in EXTRAS.items() if extra != "bench" for requirement in lines)]
    asked = {normalise(requirement.name) for requirement in used}
    assert not asked & {"tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-gpu"}


def test_the_extras_are_those_promised() -> None:
    assert {"gpu", "export", "ray", "slurm", "bench", "dev"} <= set(EXTRAS)


# --------------------------------------------------------------------------------- the checkout


def list_tracked_files() -> list[str]:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def test_no_photograph_is_in_the_repository() -> None:
    photographs = [name for name in list_tracked_files() if re.search(r"\.(jpe?g|webp|pgm|heic)$", name, re.IGNORECASE)]
    assert photographs == []


def test_the_pre_commit_hooks_are_local() -> None:
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", text) == ["local"]
