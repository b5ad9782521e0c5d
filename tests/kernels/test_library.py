"""Finding and opening the library: what is missing is said once and plain JAX is taken; the sources and the cache."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from ffem_jax import kernels
from ffem_jax.cli import main
from ffem_jax.kernels import EngineError, calls
from ffem_jax.models.convolutions import get_convolution_form

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "ffem_jax" / "kernels" / "source"


@pytest.fixture(autouse=True)
def _fresh():
    """Every test looks for the library anew, and so do those that come after."""
    yield
    kernels.load_library.cache_clear()
    calls.are_there.cache_clear()


def forget():
    kernels.load_library.cache_clear()
    calls.are_there.cache_clear()


def make_empty(folder):
    (folder / "empty.so").write_bytes(b"")
    return folder / "empty.so"


BROKEN = {
    "missing": (lambda folder: folder / "none.so", "none.so is missing"),
    "no library": (make_empty, "file too short"),
    "another library": (lambda folder: Path(ctypes.util.find_library("m") or "libm.so.6"), "undefined symbol"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_without_its_library_plain_jax_is_taken_and_that_is_said_once(name, tmp_path, monkeypatch, capsys):
    make, message = BROKEN[name]
    library = make(tmp_path)
    if name == "another library":
        monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(kernels, "LIBRARY", library)
    forget()
    with pytest.warns(UserWarning, match=f"no compiled kernels .*{message}.*apt install g"):
        assert get_convolution_form() == "shifted"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_convolution_form() == "shifted"
        assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith("on a CPU by plain JAX\n")


def test_a_sweep_s_workers_are_not_told_again(tmp_path, monkeypatch):
    monkeypatch.delenv("FFEM_ENGINE", raising=False)
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "nowhere.so")
    forget()
    with pytest.warns(UserWarning, match="no compiled kernels"), kernels.settle_engine():
        assert os.environ["FFEM_ENGINE"] == "jax"
    assert "FFEM_ENGINE" not in os.environ


def test_the_environment_chooses_the_engine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FFEM_ENGINE", "jax")
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_convolution_form() == "shifted"
    monkeypatch.setenv("FFEM_ENGINE", "torch")
    forget()
    with pytest.raises(EngineError, match="FFEM_ENGINE=torch is not known; choose one of: jax, avx512, avx2, baseline"):
        get_convolution_form()
    # Nothing is begun: neither a sweep's folder nor a trial's.
    monkeypatch.chdir(tmp_path)
    for words in (["--version"], ["train", "data=synthetic"], ["sweep", "quickstart"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("ffem: error: FFEM_ENGINE=torch is not known")
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
def test_one_instruction_set_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("FFEM_ENGINE", "baseline")
    forget()
    assert get_convolution_form() == "kernels"
    assert main(["--version"]) == 0
    assert "compiled kernels (baseline)" in capsys.readouterr().out
    monkeypatch.delenv("FFEM_ENGINE")
    kernels.load_library().ffem_use_instructions(b"")


@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
def test_a_library_of_other_sources_is_not_taken(monkeypatch):
    monkeypatch.setattr(kernels, "compute_source_digest", lambda: "of another version")
    forget()
    with pytest.warns(UserWarning, match="was built from other sources"):
        assert kernels.load_library() is None


# The last one compiles for a processor whose types have other sizes and signs.
COMPILERS = ["g++", "clang++", "aarch64-linux-gnu-g++"]


def find(compiler):
    if not (found := shutil.which(compiler)):
        pytest.skip(f"no {compiler}")
    return found


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_interface_is_that_of_the_jax_that_is_installed(compiler):
    """Each size, offset and code that the handlers rely on; the compiler itself compares them."""
    flags = ["-std=c++17", "-fsyntax-only", f"-I{SOURCE}", f"-I{jax.ffi.include_dir()}"]
    ours = Path(__file__).with_name("interface.cpp")
    result = subprocess.run([find(compiler), *flags, str(ours)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


CACHED = """
import jax, jax.numpy as jnp, jax.monitoring
from ffem_jax.kernels import calls
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
def loss(x, kernel):
    y = calls.depthwise(x, kernel, 1)
    running = jnp.zeros(8), jnp.ones(8)
    return jnp.sum(calls.batch_norm(y, running, *[jnp.ones(8)] * 3, "relu6", 1e-5, 0.9)[0] ** 2)
assert calls.are_there()
grads = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((2, 5, 5, 8)), jnp.ones((3, 3, 1, 8))).compile()
hits.clear()
x = jnp.arange(400.0).reshape(2, 5, 5, 8)
grads = jax.jit(lambda x: jax.grad(loss, (0, 1))(x, jnp.ones((3, 3, 1, 8))))
print(len(hits), sum(float(jnp.sum(g)) for g in grads(x)), len(hits))
"""


@pytest.mark.slow
@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
def test_programs_with_kernels_are_found_in_the_cache_by_another_process(tmp_path):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    said = []
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", CACHED], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        said.append(result.stdout.split())
    (_, first, hits), (_, second, found) = said
    assert first == second
    assert int(found) > int(hits)


MACROS = ["-DFFEM_LOOPS=kBaseline", "-DFFEM_WIDTH=16", '-DFFEM_INSTRUCTIONS="baseline"', f"-I{SOURCE}"]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", ["handlers.cpp", "loops.cpp"])
def test_the_sources_compile_without_a_warning(compiler, name):
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fsyntax-only", *MACROS]
    result = subprocess.run([find(compiler), *flags, str(SOURCE / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-aarch64")
def test_the_loops_run_on_aarch64(tmp_path):
    """All of them, in an emulator: compiled for it, nothing crashes. Values are held on the machines themselves."""
    program = tmp_path / "driver"
    files = [str(SOURCE / "loops.cpp"), str(Path(__file__).with_name("sanitized_loops.cpp"))]
    flags = ["-std=c++17", "-O2", "-static", "-Wno-psabi", *MACROS, "-o", str(program)]
    made = subprocess.run([find("aarch64-linux-gnu-g++"), *flags, *files], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    result = subprocess.run(["qemu-aarch64", str(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_the_loops_read_and_write_nothing_that_is_not_theirs(tmp_path):
    """Under AddressSanitizer and UBSan, by a driver that gives them arrays with nothing around: every size there is."""
    program = tmp_path / "driver"
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-psabi"]
    files = [str(SOURCE / "loops.cpp"), str(Path(__file__).with_name("sanitized_loops.cpp"))]
    made = subprocess.run(["g++", *flags, *MACROS, *files, "-o", str(program)], capture_output=True, text=True)
    if "cannot find" in made.stderr and "asan" in made.stderr:
        pytest.skip("g++ has no sanitizers here")
    assert made.returncode == 0, made.stderr
    # Address space may be short; leaks are not what is looked for.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run([str(program)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000
