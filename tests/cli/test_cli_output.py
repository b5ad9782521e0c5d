"""What `ffem` prints arrives: in any encoding, into a pipe that closes, with names that a terminal would obey."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax import cli
from ffem_jax.cli import COMMANDS, main, terminal
from ffem_jax.cli.terminal import open_output
from ffem_jax.records.record import append_record
from ffem_jax.text import tables

FFEM = [sys.executable, "-m", "ffem_jax.cli"]
NAMES = ["net[/v2]", ":smile: Müller 李", "a\x1b[2Jb"]
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
LATIN_1 = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
NO_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Networks with names that have meant something to rich, to terminals and to encodings."""
    path = tmp_path / "Aufzeichnungen für 李" / "records.jsonl"
    for number, (name, kind) in enumerate(zip(NAMES, ("none", "eca", "se"), strict=True)):
        fields = {"arch": {"name": name}, "attention": {"kind": kind}}
        append_record(path, build_record(correct=70 + number, params=10**6 * (1 + number), **fields))
    return path


def run(words: list[str], **environment: str) -> tuple[int, str, str]:
    done = subprocess.run([*FFEM, *words], capture_output=True, env={**os.environ, **environment}, timeout=120)
    encoding = environment.get("PYTHONIOENCODING") or "utf-8"
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode("utf-8", "replace")


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], records: Path) -> None:
    assert main(["frontier", str(records)]) == 0
    out, err = capsys.readouterr()
    for name in ("net[/v2]", ":smile: Müller 李", r"a\x1b[2Jb"):
        assert name in out
    assert "\x1b" not in out + err
    assert main(["compare", str(records), "--factor", "arch.name"]) == 0
    out, err = capsys.readouterr()
    assert "net[/v2]" in out
    assert "\x1b" not in out + err


@pytest.mark.parametrize("environment", [ASCII, LATIN_1, NO_LOCALE], ids=["ascii", "latin-1", "no locale"])
def test_no_encoding_ends_a_command(records: Path, environment: dict[str, str]) -> None:
    for words in (["frontier", str(records)], ["frontier", str(records), "--json"]):
        status, out, err = run(words, **environment)
        assert (status, "Traceback" in err) == (0, False), err
        assert "net[/v2]" in out
        if "--json" in words:
            assert {network["label"] for network in json.loads(out)["networks"]} == set(NAMES)
        else:
            assert r"\u674e" in out
            assert r"\u2500" not in out  # the table's lines


def test_a_name_that_is_no_text_is_printed_all_the_same(tmp_path: Path) -> None:
    status, out, err = run(["train", "--cfg", "arch.name=caf\udce9", f"data.root={tmp_path}/\udcff"])
    assert (status, err) == (0, "")
    assert r"\uDCE9" in out
    status, out, err = run(["frontier", str(tmp_path / "caf\udce9")])
    assert (status, out) == (2, "")
    assert r"caf\udce9 does not exist" in err


def test_a_closed_pipe_is_the_end_and_no_fault() -> None:
    for words in ("sweep --list", "train --help", "train --cfg"):
        script = f"{' '.join(FFEM)} {words} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
        assert done.stderr == "", words
        assert done.stdout.strip() in ("0", "141")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("how", [socket.SHUT_RD, None])
def test_a_socket_that_nobody_reads_is_no_fault_either(how: int | None, unbuffered: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if how is None:
            theirs.close()
        else:
            theirs.shutdown(how)
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            [*FFEM, "sweep", "--list"], stdout=ours, stderr=subprocess.PIPE, text=True, timeout=120, env=environment
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_the_package_is_the_command() -> None:
    words = [sys.executable, "-m", "ffem_jax", "sweep", "--list"]
    done, same = (
        subprocess.run(one, capture_output=True, text=True, timeout=120) for one in (words, [*FFEM, *words[3:]])
    )
    assert (done.returncode, done.stdout) == (0, same.stdout)


def test_an_unknown_option_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "placement", "--lst", "data=folder"]) == 2
    assert (
        capsys.readouterr().err
        == "ffem: error: there is no option --lst; did you mean --list? see ffem sweep NAME --help\n"
    )
    assert main(["align", "a", "b", "c"]) == 2
    assert "unrecognized arguments: c" in capsys.readouterr().err
    assert main(["train", "--cfg", "-m", "seed=1,2"]) == 2
    assert "give only one of them" in capsys.readouterr().err


def test_a_folder_that_a_failed_command_made_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_output(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), open_output(tmp_path / "there"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), open_output(tmp_path / "c" / "d"):
        (tmp_path / "c" / "file").touch()
        raise ZeroDivisionError
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["c", "file", "there"]
    with open_output(tmp_path / "e"):
        pass
    assert (tmp_path / "e").is_dir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*FFEM, "sweep", "--list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --------------------------------------------------------------------------- folders and files


@pytest.mark.parametrize(
    "name", ["Müller", "李明", "faces (1)", "it's", "a,b", "a=b", "r&d", "set#2", "with space", "-d"]
)
def test_a_folder_of_faces_of_any_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    for root in (name, str(tmp_path / name)):
        assert main(["train", "--cfg", "data=folder", f"data.root={root}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["data"]["root"] == root


@pytest.mark.parametrize("name", ["my configs (1)", "Müller", "a,b", "it's", "50%", "[a]"])
def test_a_config_folder_of_any_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    (tmp_path / name / "arch").mkdir(parents=True)
    for own in ("mine", "größe (1)"):
        text = f"defaults: [ffem]\nname: {own}\n"
        (tmp_path / name / "arch" / f"{own}.yaml").write_text(text, encoding="utf-8")
        words = ["train", "--cfg", "--json", f"arch={own}", "--config-dir", str(tmp_path / name)]
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["arch"]["name"] == own


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("# ü\nname: x\n".encode("latin-1"), "is not in UTF-8"),
        (b"\xef\xbb\xbf# @package _global_\nname: x\n", "starts with a byte-order mark"),
    ],
)
def test_a_config_file_in_another_encoding_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch" / "mine.yaml").write_bytes(content)
    assert main(["cost", "arch=mine", "--config-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine.yaml" in line
    assert told in line


def test_a_config_folder_that_hydra_cannot_name_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "${x}").mkdir()
    assert main(["cost", "--config-dir", str(tmp_path / "${x}")]) == 2
    assert "rename it" in capsys.readouterr().err


def test_a_sweep_file_in_another_encoding_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "old.yaml").write_bytes("# Größe?\nhydra: {}\n".encode("latin-1"))
    marked = b"\xef\xbb\xbf# How large?\nhydra:\n  sweeper:\n    params: {seed: '0,1'}\n"
    (tmp_path / "sweeps" / "marked.yaml").write_bytes(marked)
    assert main(["sweep", "--list"]) == 0
    assert "marked       How large?" in capsys.readouterr().out
    append_record(tmp_path / "records.jsonl", build_record())
    for words in (["sweep", "old"], ["predict", "records.jsonl", "--space", "old"]):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "old.yaml is not in UTF-8" in line


def test_prose_is_broken_between_words_on_a_terminal_alone(capsys, monkeypatch):
    text = "a sentence of many words about a network, " * 5 + "end"
    terminal.say(text)
    assert capsys.readouterr().err == text + "\n"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    terminal.say(text)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == text
    terminal.say(text, whole=True)  # a command to be copied
    assert capsys.readouterr().err == text + "\n"


@pytest.mark.parametrize("command", ["", *COMMANDS, "sweep --list"])
def test_help_fits_a_terminal_of_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for module in (cli, terminal, tables):
        monkeypatch.setattr(module, "find_width", lambda _: 80)
    words = command.split()
    with contextlib.suppress(SystemExit):
        main(words if "--list" in words else [*words, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("width", [60, 80])
def test_a_line_of_results_breaks_between_words_unless_it_is_to_be_copied(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, line = Terminal(), "onnxruntime on x86-64, 120 held-out images: " + "a difference, " * 12
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", shown)
    terminal.show(line)
    broken = shown.getvalue().splitlines()
    assert max(map(len, broken)) <= width
    assert " ".join(broken).split() == line.split()
    terminal.show(f"folder: {line}", whole=True)
    assert shown.getvalue().splitlines()[len(broken) :] == [f"folder: {line}"]


def test_a_file_that_is_not_there_is_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.json"
    assert main(["serve", "--model", str(missing), "--threshold", "0.5"]) == 2
    assert capsys.readouterr().err == f"ffem: error: {missing}: No such file or directory\n"
