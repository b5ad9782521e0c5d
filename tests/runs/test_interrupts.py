"""Ctrl-C: answered while compiled code runs, an orderly stop, at the second an end; workers end with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ffem_jax.runs import interrupts
from ffem_jax.runs.interrupts import answer_interrupts, raise_if_interrupted

REPOSITORY = Path(__file__).resolve().parents[2]

# What holds the main thread as a compilation does: compiled code, outside of Python, that no signal shortens.
COMPILE = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', {rounds})"
SHORT, LONG = 8_000_000, 10**9

ALONE = f"""
import sys
from filelock import FileLock
from ffem_jax.runs.interrupts import answer_interrupts

try:
    with answer_interrupts(), FileLock("trial.lock"):
        print("started", flush=True)
        {COMPILE.format(rounds="int(sys.argv[1])")}
        print("went on", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
"""

POOL = f"""
import sys
from joblib.externals.loky import get_reusable_executor


def work():
    from ffem_jax.runs.interrupts import answer_interrupts

    with answer_interrupts():
        print("started", flush=True)
        {COMPILE.format(rounds=LONG)}


if __name__ == "__main__":
    get_reusable_executor(max_workers=1).submit(work).result()
"""


IN_A_FINALIZER = """
import sys, time
from ffem_jax.runs.interrupts import answer_interrupts


class Slow:
    def __del__(self):
        print("started", flush=True)
        time.sleep(1)


try:
    with answer_interrupts():
        Slow()
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
"""


class Process:
    """A process whose output, and that of its children, goes to one pipe; it ends with the last of them."""

    def __init__(self, words: list[str], folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Where these tests run in the background, their children would ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: list[str] = []
        self.closed = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.closed.set()

    def press_ctrl_c(self) -> None:
        """As a terminal does, which tells all processes of its foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, what: Callable[[], object], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, self.lines
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*words: str, **environment: str) -> Process:
        started.append(Process(list(words), tmp_path, **environment))
        return started[-1]

    yield begin
    for one in started:
        if not one.closed.is_set():
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()


def test_the_first_is_answered_during_compiled_code_and_stops_after_it(start: Callable[..., Process]) -> None:
    one = start("-c", ALONE, str(SHORT))
    one.wait_for(lambda: one.lines == ["started"], 60)
    one.press_ctrl_c()
    one.wait_for(lambda: len(one.lines) > 1, 60)
    assert one.lines[1] == interrupts.STOPPING
    one.wait_for(one.closed.is_set, 120)
    assert one.lines[2:] == ["stopped"]
    assert one.process.wait() == 130


def test_the_answer_does_not_wait_and_the_second_ends_at_once_with_its_lock(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    one = start("-c", ALONE, str(LONG))
    one.wait_for(lambda: one.lines == ["started"], 60)
    lock = FileLock(tmp_path / "trial.lock")
    with pytest.raises(Timeout):
        lock.acquire(timeout=0)
    one.press_ctrl_c()
    one.wait_for(lambda: len(one.lines) > 1, 10)  # compiled code goes on for minutes
    assert one.process.poll() is None
    one.press_ctrl_c()
    one.wait_for(one.closed.is_set, 10)
    assert one.process.wait() == 130
    assert one.lines == ["started", interrupts.STOPPING, interrupts.ENDED]
    with lock.acquire(timeout=0):
        pass


def test_one_that_comes_where_no_exception_is_heard_is_raised_after_it(start: Callable[..., Process]) -> None:
    one = start("-c", IN_A_FINALIZER)
    one.wait_for(lambda: one.lines == ["started"], 60)
    one.press_ctrl_c()
    one.wait_for(one.closed.is_set, 30)
    assert one.lines == ["started", interrupts.STOPPING, "stopped"]
    assert one.process.wait() == 130


@pytest.mark.parametrize("times", [2, 1], ids=["ctrl-c-twice", "parent-killed"])
def test_a_worker_of_a_pool_ends_with_its_parent_and_says_nothing(
    start: Callable[..., Process], times: int, tmp_path: Path
) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    one = start("pool.py")
    one.wait_for(lambda: "started" in one.lines, 60)
    if times == 1:
        one.process.kill()
    else:
        for _ in range(times):
            one.press_ctrl_c()
            time.sleep(0.3)
    one.wait_for(one.closed.is_set, 20)
    assert not [line for line in one.lines if line in (interrupts.STOPPING, interrupts.ENDED)]


@pytest.fixture
def heard() -> Iterator[None]:
    """Whoever runs the tests in the background has them ignore Ctrl-C; here it is heard as at a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_within_a_block_and_in_a_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with answer_interrupts():
        ours = signal.getsignal(signal.SIGINT)
        assert ours is not before
        with answer_interrupts():
            assert signal.getsignal(signal.SIGINT) is ours
        thread = threading.Thread(target=lambda: answer_interrupts().__enter__())
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is ours
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("heard")
def test_an_interrupt_that_a_library_swallowed_is_raised_again(capfd: pytest.CaptureFixture[str]) -> None:
    with answer_interrupts():
        raise_if_interrupted()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert capfd.readouterr().err.splitlines() == [interrupts.STOPPING]
    with answer_interrupts():
        raise_if_interrupted()  # the next one begins anew


FFEM = "import sys; from ffem_jax.cli import main; sys.exit(main())"


@pytest.mark.slow
def test_ffem_train_stops_while_compiling_and_leaves_no_lock(start: Callable[..., Process], tmp_path: Path) -> None:
    words = ["train", "data=synthetic", "data.people=4", "data.resolution=32", f"hydra.run.dir={tmp_path}/out"]
    one = start("-c", FFEM, *words, JAX_COMPILATION_CACHE_DIR="")
    one.wait_for((tmp_path / "out" / "trial.json").exists, 120)  # the last thing before compiling
    one.press_ctrl_c()
    one.wait_for(lambda: interrupts.STOPPING in one.lines, 10)
    one.wait_for(one.closed.is_set, 120)
    assert one.process.wait() == 130
    assert one.lines[-1].startswith("ffem: stopped; the same command resumes from here: ffem train")
    locks = list((tmp_path / "out" / ".locks").glob("*.lock"))
    assert locks
    for lock in locks:
        with FileLock(lock).acquire(timeout=0):
            pass
    assert not (tmp_path / "out" / "records.jsonl").exists()


@pytest.mark.slow
def test_ffem_sweep_stops_its_workers(start: Callable[..., Process], tmp_path: Path) -> None:
    words = ["sweep", "quickstart", "launcher=joblib", "launcher.jobs=2", f"hydra.sweep.dir={tmp_path}/out"]
    one = start("-c", FFEM, *words, JAX_COMPILATION_CACHE_DIR="")
    one.wait_for(lambda: list(tmp_path.glob("out/*/trial.json")), 180)
    one.press_ctrl_c()
    one.wait_for(lambda: interrupts.STOPPING in one.lines, 10)
    one.wait_for(one.closed.is_set, 60)  # every process of it, its workers too
    assert one.process.wait() == 130
    assert one.lines.count(interrupts.STOPPING) == 1
    assert one.lines[-1].startswith("ffem: stopped; the same command resumes from here: ffem sweep quickstart")
