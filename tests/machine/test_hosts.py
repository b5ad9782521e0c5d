"""How the processes of a trial hear each other, on a store as JAX's coordination service has it; and how they meet."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ffem_jax.config.compose import ConfigError, open_composer
from ffem_jax.config.schema import ApplicationSpec, LauncherSpec
from ffem_jax.machine import hosts
from ffem_jax.machine.hosts import HostError, _Group
from ffem_jax.search.plan import plan_search
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.run import RunSpec


class Store:
    """The key-value store of the coordination service, for threads that stand for processes."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.changed = threading.Condition()

    def key_value_set(self, key: str, value: str) -> None:
        with self.changed:
            if key in self.values:
                raise RuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, milliseconds / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED: GetKeyValue() timed out")
            return self.values[key]

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        with self.changed:
            return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


def run_all(function: Any, count: int = 3) -> list[Any]:
    """`function` of each of so many processes, side by side; what it raises stands for what it gives."""
    store = Store()

    def run(number: int) -> Any:
        try:
            return function(_Group(store, number, count))
        except HostError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def test_all_hear_the_first_one_turn_by_turn() -> None:
    told = run_all(lambda group: [group.tell([group.number, turn]) for turn in range(5)])
    assert told == [[[0, turn] for turn in range(5)]] * 3


def test_all_hear_all_in_order() -> None:
    def speak(group: _Group) -> Any:
        time.sleep(0.05 * (3 - group.number))
        return group.gather({"own": group.number}), group.tell("end")

    assert run_all(speak) == [([{"own": 0}, {"own": 1}, {"own": 2}], "end")] * 3


@pytest.mark.parametrize("failing", [0, 2])
def test_nobody_waits_for_one_that_failed(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_LOOK_MILLISECONDS", 20)

    def speak(group: _Group) -> Any:
        if group.number == failing:
            group.fail("the disk vanished")
            return group.exit_status
        return group.gather("here")

    found = run_all(speak)
    assert found.pop(failing) == 1
    assert [str(error) for error in found] == [f"process {failing}: the disk vanished"] * 2


def test_one_that_failed_says_why_once_and_begins_no_other_trial() -> None:
    def speak(group: _Group) -> Any:
        group.fail("the first reason")
        group.fail("another", 130)
        assert group.exit_status == 1
        return group.tell("on")

    (error,) = run_all(speak, 1)
    assert "an earlier trial of these processes failed" in str(error)


def test_a_process_alone_answers_at_once() -> None:
    assert (hosts.count(), hosts.is_first(), hosts.has_failed()) == (1, True, False)
    assert hosts.tell("x") == "x"
    assert hosts.gather(3) == [3]
    assert hosts.explain_failure(ValueError("odd\nlines")) == "ValueError: odd"
    with pytest.raises(ZeroDivisionError), hosts.end_together():
        raise ZeroDivisionError
    assert not hosts.has_failed()


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError("the disk vanished"), 1), (SpecError("recipe.epochs=0"), 2), (KeyboardInterrupt(), 130)],
)
def test_whatever_ends_a_trial_is_said_to_the_others(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, other = _Group(store := Store(), 1, 2), _Group(store, 0, 2)
    monkeypatch.setattr(hosts, "_group", group)
    with pytest.raises(type(error)), hosts.end_together():
        raise error
    assert (group.exit_status, hosts.has_failed(), hosts.is_first()) == (status, True, False)
    assert other.read_failures() == f"process 1: {hosts.describe_error(error)}"
    assert group.read_failures() == ""


def test_the_reason_of_another_process_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class JaxRuntimeError(RuntimeError):
        pass

    group, other = _Group(store := Store(), 0, 2), _Group(store, 1, 2)
    monkeypatch.setattr(hosts, "_group", group)
    lost = JaxRuntimeError("Gloo all-reduce failed")
    assert hosts.explain_failure(lost).startswith("another process seems to have ended, and the same command goes on")
    other.fail("StreamError: image 7 can no longer be read")
    assert hosts.explain_failure(lost) == "process 1: StreamError: image 7 can no longer be read"


def meet(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from ffem_jax.errors import FfemError\nfrom ffem_jax.machine import hosts\nhosts.START_PATIENCE = 0.2\n"
        f"try:\n    hosts.join(*{arguments!r})\nexcept FfemError as error:\n    print(error)\n"
        "else:\n    import sys; print(hosts.count(), 'jax' in sys.modules)"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI"))}
    return subprocess.run(
        [sys.executable, "-c", code], env={**inherited, **environment}, capture_output=True, text=True, timeout=120
    )


def test_one_process_meets_nobody_and_needs_no_jax() -> None:
    assert meet(1).stdout.split() == ["1", "False"]


@pytest.mark.parametrize("arguments", [(0,), (2,), (2, -1, "127.0.0.1:9"), (2, 0)])
def test_what_is_missing_to_meet_is_said_in_one_line(arguments: tuple[Any, ...]) -> None:
    said = meet(*arguments).stdout.splitlines()
    assert len(said) == 1
    assert "give run.processes, run.coordinator=HOST:PORT of process 0, and run.process from 0" in said[0]


def test_whoever_has_computed_already_is_told_so() -> None:
    code = "import jax; jax.devices(); from ffem_jax.machine import hosts; hosts.join(2, 0, '127.0.0.1:9')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "HostError: run.processes=2: JAX has computed in this process already" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_who_comes_alone_ends_after_a_while_in_one_line() -> None:
    ended = meet(2, 1, "127.0.0.1:9", 10)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "ffem: 2 processes at 127.0.0.1:9 did not meet within 2 seconds; start the same command in each"
    )


@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_launchers_of_single_processes_take_no_trial_of_several(launcher: str) -> None:
    with pytest.raises(SpecError, match=f"launcher={launcher} starts one process per trial, and run.processes=2"):
        ApplicationSpec(run=RunSpec(processes=2, process=0), launcher=LauncherSpec(name=launcher))
    assert ApplicationSpec(run=RunSpec(processes=0), launcher=LauncherSpec(name="slurm")).run.processes == 0


def test_a_search_takes_no_trial_of_several_processes() -> None:
    with open_composer() as composer, pytest.raises(ConfigError, match="a search trains each network in one process"):
        plan_search(composer, "search", ["data=synthetic", "run.processes=2", "run.process=0"])
