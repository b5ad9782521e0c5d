"""People's own Python files: found, loaded once, refused in one line, and part of a trial's key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffem_jax.specs import own_code
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, SpecError, resolve_network
from ffem_jax.specs.attention import ATTENTIONS
from ffem_jax.specs.own_code import VARIABLE, PluginError, add_folder, load_plugins
from ffem_jax.specs.trial import TrialSpec, trial_key

DECLARES = """
from ffem_jax.specs.attention import AttentionKind, register_attention

class Same:
    def __init__(self, channels, *, rngs):
        pass

    def __call__(self, x):
        return x

register_attention(AttentionKind("{name}", Same))
"""


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """Each test begins and ends with the package's own kinds."""
    monkeypatch.setenv(VARIABLE, "")
    kinds, loaded, modules = dict(ATTENTIONS.kinds), set(own_code._loaded), set(sys.modules)
    yield
    ATTENTIONS.kinds.clear()
    ATTENTIONS.kinds.update(kinds)
    own_code._loaded.clear()
    own_code._loaded.update(loaded)
    for name in set(sys.modules) - modules:
        if name.startswith("ffem_own_"):
            del sys.modules[name]


def write(folder: Path, name: str, file: str = "attentions.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(DECLARES.format(name=name))
    return folder / file


def test_a_folder_s_files_are_loaded_and_found_by_processes_started_later(tmp_path):
    write(tmp_path, "mine")
    add_folder(tmp_path)
    add_folder(tmp_path)
    assert AttentionSpec(kind="mine").kind == "mine"
    assert os.environ[VARIABLE] == str(tmp_path)
    script = "from ffem_jax.specs.architecture import AttentionSpec; print(AttentionSpec(kind='mine').kind)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout == "mine\n", child.stderr


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_the_variable_names_files_and_folders(tmp_path, monkeypatch, whole):
    path = write(tmp_path / "a folder", "mine")
    other = write(tmp_path / "other", "second")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(path.parent if whole else path), "", str(other)]))
    assert AttentionSpec(kind="mine").kind == "mine"
    assert AttentionSpec(kind="second").kind == "second"


def test_a_script_that_does_not_import_this_package_is_left_alone(tmp_path):
    (tmp_path / "setup.py").write_text("raise SystemExit('was run')\n")
    add_folder(tmp_path)
    assert VARIABLE not in os.environ or not os.environ[VARIABLE]


def test_an_entry_point_of_a_package_declares(tmp_path, monkeypatch):
    write(tmp_path, "packaged", "some_package_of_mine.py")
    facts = tmp_path / "some_package_of_mine-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package-of-mine\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[ffem_jax.attentions]\npackaged = some_package_of_mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert AttentionSpec(kind="packaged").kind == "packaged"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import ffem_jax\nundefined()\n", r"own.py cannot be loaded: NameError: .*undefined.* \(line 2\)"),
        ("import ffem_jax\ndef f(:\n", r"own.py cannot be loaded: SyntaxError: .*line 2"),
        ("import ffem_jax, not_installed_here\n", "own.py cannot be loaded: ModuleNotFoundError"),
        (DECLARES.format(name="se"), "own.py cannot be loaded: arch.attention.kind=se is already registered"),
        (DECLARES.format(name="two words"), "own.py cannot be loaded: arch.attention.kind='two words'"),
    ],
)
def test_a_file_that_fails_is_named_in_one_line_each_time(tmp_path, monkeypatch, text, told):
    (tmp_path / "own.py").write_text(text)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own.py"))
    for _ in range(2):
        with pytest.raises(PluginError, match=told) as raised:
            load_plugins()
        assert "\n" not in str(raised.value)
    with pytest.raises(PluginError, match=told):
        AttentionSpec(kind="missing")
    assert AttentionSpec(kind="se").kind == "se"


def test_a_variable_that_names_nothing_or_no_python_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(PluginError, match="gone, which does not exist"):
        AttentionSpec(kind="missing")
    (tmp_path / "notes.txt").write_text("no code")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "notes.txt"))
    with pytest.raises(PluginError, match=r"notes.txt is not a Python file"):
        AttentionSpec(kind="missing")


def test_a_changed_file_is_another_trial_and_the_package_s_own_kinds_have_no_digest(tmp_path):
    def compute_key(text: str) -> str:
        path = write(tmp_path, "mine")
        path.write_text(path.read_text() + text)
        own_code._loaded.discard(path.resolve())
        ATTENTIONS.kinds.pop("mine", None)
        add_folder(tmp_path)
        spec = TrialSpec(arch=ArchSpec(attention=AttentionSpec(kind="mine")))
        assert len(resolve_network(spec.arch).own_code) == 16
        return trial_key(spec)

    first = compute_key("")
    assert compute_key("CHANGED = True\n") != first
    assert compute_key("") == first
    ATTENTIONS.kinds.pop("mine")
    for name in ATTENTIONS.names:
        assert resolve_network(ArchSpec(attention=AttentionSpec(kind=name))).own_code == ""


def test_without_attention_in_any_block_its_file_decides_nothing(tmp_path):
    write(tmp_path, "mine")
    add_folder(tmp_path)
    unplaced = AttentionSpec(kind="mine", placement=())
    assert resolve_network(ArchSpec(attention=unplaced)) == resolve_network(ArchSpec())


def test_a_name_that_is_nowhere_is_refused_with_the_ways_to_bring_one():
    with pytest.raises(
        SpecError, match=r"choose one of: none, eca, .*give its folder with --config-dir DIR, or with FFEM_PLUGINS=PATH"
    ):
        AttentionSpec(kind="missing")
