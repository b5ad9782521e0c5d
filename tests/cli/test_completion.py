"""The completion script, run in bash: what is offered is what the commands take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ffem_jax.cli import COMMANDS, completion, main
from ffem_jax.config.compose import find_sweeps, list_groups

ASK = """
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS="$2"
_ffem
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script() -> str:
    return completion.write_script("bash")


@pytest.fixture
def complete(script: str, tmp_path: Path):
    """What bash would offer for a line, in a folder of the test's own."""

    def ask(line: str, breaks: str = " \t\n=:") -> list[str]:
        words = ["bash", "--norc", "-c", script + ASK, "bash", line, breaks]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


def test_every_command_is_offered(complete) -> None:
    assert set(complete("ffem ")) == {*COMMANDS, "--help", "--version"}
    assert complete("ffem fro") == ["frontier"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_of_the_help(complete, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    offered = complete(f"ffem {command} --")
    assert {"--help", "--json"} <= set(offered)
    assert all(option in told for option in offered)


def test_groups_keys_and_their_values(complete) -> None:
    for group, choices in list_groups().items():
        assert set(complete(f"ffem train {group}=")) >= set(choices)
    assert complete("ffem cost data.reso") == ["data.resolution="]
    assert complete("ffem cost arch=ffem_a") == ["ffem_am"]
    assert complete("ffem cost arch=ffem_a", breaks=" \t\n") == ["arch=ffem_am"], "where = breaks no word"
    assert complete("ffem train recipe.nest") == ["recipe.nesterov="]
    assert complete("ffem train recipe.nesterov=") == ["true", "false"]
    assert "arcface" in complete("ffem train -m seed=1,2 recipe.loss=")


def test_the_sweeps_shipped_and_those_of_the_folder(complete, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "own.yaml").write_text("# Mine?\n")
    assert set(complete("ffem sweep ")) == {*find_sweeps(), "own"}
    assert complete("ffem sweep placement arch=mobilen") == ["mobilenetv2"]


def test_paths_and_choices_of_options(complete, tmp_path: Path) -> None:
    (tmp_path / "outputs" / "place").mkdir(parents=True)
    (tmp_path / "outputs" / "place" / "records.jsonl").touch()
    assert complete("ffem frontier out") == ["outputs"]
    assert complete("ffem list outputs/place/re") == ["outputs/place/records.jsonl"]
    assert complete("ffem train data.root=out") == ["outputs"]
    assert complete("ffem export outputs --format ") == ["tfjs", "onnx", "tflite"]
    assert complete("ffem export outputs --out out") == ["outputs"]
    assert complete("ffem completion ") == ["bash", "zsh"]


def test_what_stands_behind_serve(complete) -> None:
    assert complete("ffem serve p") == ["people"]
    assert complete("ffem serve people ") == ["list", "delete"]
    pytest.importorskip("sqlalchemy")
    assert "--scopes" in complete("ffem serve keys add --")


def test_nothing_is_offered_for_what_there_is_not(complete) -> None:
    assert complete("ffem nothing x --") == []
    assert complete("ffem train arch=nothing") == []


def test_the_command_prints_it_for_both_shells(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script
    assert main(["completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert "bashcompinit" in out
    assert script.partition("\n")[2] in out
    assert main(["completion", "fish"]) == 2
    assert "bash" in capsys.readouterr().err


def test_the_parsers_are_as_they_were_afterwards() -> None:
    completion.read_commands()
    assert main(["train", "nonsense", "--json"]) == 2
