"""The same search on a Ray cluster of three nodes, through submitit, with PostgreSQL, and by a Hydra application."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from search_stand_in import write_environment

from ffem_jax.config.compose import find_conf_dir
from ffem_jax.records.record import read_records

pytestmark = pytest.mark.slow

SEARCH = ("sweep", "search", "data=synthetic", "--json")


def start(folder: Path, environment: dict[str, str], *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ffem_jax.cli", *SEARCH, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen, folder: Path, networks: int) -> dict:
    """Wait for a search and hold it to its budget: every network trained once, its record whole."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    counts = json.loads(out)
    records = read_records(folder / "outputs" / "search-synthetic" / "records.jsonl")
    assert Counter(record.status for record in records) == {"done": networks}, err
    assert len({record.trial_key for record in records}) == networks
    assert err.count(f"/{networks}] network ") == networks
    return counts


def list_trainers(folder: Path) -> set[str]:
    """The processes that trained something."""
    path = folder / "outputs" / "search-synthetic" / "trainings.txt"
    return {line.split()[0] for line in path.read_text().splitlines()} if path.exists() else set()


def test_a_search_on_a_ray_cluster_of_three_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    environment = write_environment(tmp_path, seconds=1.0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)  # the nodes' processes have the environment of who starts the cluster
    cluster = Cluster()
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 1024 * 1024)
        process = start(
            tmp_path,
            environment,
            "launcher=ray",
            "launcher.jobs=3",
            f"hydra.launcher.ray.init.address={cluster.address}",
            "hydra.launcher.ray.init.num_cpus=null",
            "+hydra.launcher.ray.init.object_store_memory=null",
            "hydra.sweeper.n_trials=12",
        )
        finish(process, tmp_path, 12)
    finally:
        cluster.shutdown()
    assert len(list_trainers(tmp_path)) == 3


def test_a_search_through_submitit_s_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra slurm is not installed")
    environment = write_environment(tmp_path, seconds=1.0)
    process = start(
        tmp_path, environment, "hydra/launcher=submitit_local", "launcher.jobs=2", "hydra.sweeper.n_trials=8"
    )
    finish(process, tmp_path, 8)
    assert len(list_trainers(tmp_path)) == 2


@contextlib.contextmanager
def start_postgresql() -> Iterator[str]:
    """A PostgreSQL of the test's own, and the URL of a database in it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    binaries = folders[-1] if folders else Path(shutil.which("initdb") or "/nowhere/initdb").parent
    if not (binaries / "initdb").exists():
        pytest.skip("no PostgreSQL: on Debian and Ubuntu apt install postgresql")
    user: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="ffem-postgresql-"))
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"

    def run(*words: str) -> None:
        subprocess.run([*user, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    run(str(binaries / "initdb"), "-D", str(data), "-U", "ffem", "-A", "trust", "--no-sync")
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "100", "-l", str(folder / "log")]
    run(*control, "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off", "start")
    try:
        yield f"postgresql+psycopg://ffem@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_a_search_on_postgresql_survives_kills(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    environment = write_environment(tmp_path, seconds=0.5)
    with start_postgresql() as url:
        storage = [f"hydra.sweeper.storage={url}", "hydra.sweeper.n_trials=10", "launcher=joblib"]
        process = start(tmp_path, environment, *storage)
        kill_workers(tmp_path, process, times=2)
        finish(process, tmp_path, 10)
        # All of it is in the database: another command knows that nothing is left to do.
        again = start(tmp_path, environment, *storage)
        out, err = again.communicate(timeout=300)
        assert again.returncode == 0, err
        assert json.loads(out)["done"] == 10
        assert "] network" not in err
    assert not list((tmp_path / "outputs").rglob("study.journal"))


def find_workers(folder: Path) -> list[int]:
    """The processes of this machine that work for the search in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"ffem_jax.search.workers.worker" in words and str(folder).encode() in b" ".join(words):
                found.append(int(path.parent.name))
    return found


def kill_workers(folder: Path, search: subprocess.Popen, times: int) -> int:
    """Kill at random one of the workers that have trained, again and again; returns how often it came to that."""
    rng, killed = np.random.default_rng(0), 0
    while killed < times and search.poll() is None:
        time.sleep(float(rng.uniform(0.1, 1.0)))
        if workers := sorted(set(find_workers(folder)) & set(map(int, list_trainers(folder)))):
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            killed += 1
    return killed


def test_twenty_kills_in_one_search_and_every_network_is_accounted_for_once(tmp_path: Path) -> None:
    environment = write_environment(tmp_path, seconds=0.4)
    process = start(tmp_path, environment, "launcher=joblib", "launcher.jobs=3", "hydra.sweeper.n_trials=60")
    killed = kill_workers(tmp_path, process, times=20)
    out, err = process.communicate(timeout=600)
    assert killed == 20, err
    counts = json.loads(out)
    assert counts["done"] + counts["failed"] == 60, err
    assert process.returncode == (1 if counts["failed"] else 0)
    records = read_records(tmp_path / "outputs" / "search-synthetic" / "records.jsonl")
    assert len(records) == len({record.trial_key for record in records}) == 60
    assert {record.error for record in records if record.status == "failed"} <= {"its worker was killed, 2 times"}
    assert err.count("/60] network ") == 60
    # Each network was begun once, and once more where its worker was killed meanwhile.
    lines = (tmp_path / "outputs" / "search-synthetic" / "trainings.txt").read_text().split()
    begun = Counter(lines[1::2])
    assert len(begun) == 60
    assert max(begun.values()) <= 2
    assert sum(begun.values()) <= 60 + killed
    assert not find_workers(tmp_path)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    environment = write_environment(tmp_path, seconds=30.0)
    process = start(tmp_path, environment, "launcher=joblib", "hydra.sweeper.n_trials=4")
    log = tmp_path / "outputs" / "search-synthetic" / "trainings.txt"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not find_workers(tmp_path))
    process = start(
        tmp_path, {**environment, "FFEM_STAND_IN_SECONDS": "0"}, "launcher=joblib", "hydra.sweeper.n_trials=4"
    )
    finish(process, tmp_path, 4)


def test_a_search_whose_study_is_lost_goes_on_from_its_records(tmp_path: Path) -> None:
    environment = write_environment(tmp_path)
    words = ("launcher=joblib", "run.cap_mmacs=100", "hydra.sweeper.n_trials=10")
    finish(start(tmp_path, environment, *words), tmp_path, 10)
    shutil.rmtree(tmp_path / "outputs" / "search-synthetic" / "search")
    records = tmp_path / "outputs" / "search-synthetic" / "records.jsonl"
    kept = records.read_text()
    # Of the same networks but other faces, and of another recipe: neither is this search's.
    strange, other = (json.loads(line) for line in kept.splitlines()[:2])
    strange["trial_key"], strange["spec"]["arch"]["embedding_dim"] = "of other faces", 64
    other["trial_key"], other["spec"]["recipe"]["epochs"] = "of another recipe", 3
    records.write_text(kept + json.dumps(strange) + "\n" + json.dumps(other) + "\n")
    process = start(tmp_path, environment, *words[:2], "hydra.sweeper.n_trials=14")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "10 networks taken over from the records" in err
    assert err.count("/14] network ") == 4
    assert len((records.parent / "trainings.txt").read_text().splitlines()) == 14
    assert records.read_text().startswith(kept)


def wait_until(holds: object, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_hydra_application_finds_the_sweeper(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import hydra\n"
        "from ffem_jax.config.compose import find_sweep, register_schema, register_sweep\n"
        "register_schema()\n"
        "register_sweep('search', find_sweep('search'))\n"
        f"@hydra.main(version_base='1.3', config_path={str(find_conf_dir())!r}, config_name='config')\n"
        "def app(config):\n"
        "    raise AssertionError('the workers run trials')\n"
        "app()\n"
    )
    command = [sys.executable, "app.py", "-m", "+sweep=search", "data=synthetic", "hydra.sweeper.n_trials=3"]
    environment = write_environment(tmp_path)
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "[3/3] network" in result.stderr


def test_a_search_that_halves_survives_kills(tmp_path: Path) -> None:
    environment = write_environment(tmp_path, seconds=0.4)
    halving = ["hydra.sweeper.halving.enabled=true", "hydra.sweeper.halving.min_epochs=1"]
    process = start(tmp_path, environment, *halving, "launcher=joblib", "hydra.sweeper.n_trials=18")
    assert kill_workers(tmp_path, process, times=5) == 5
    out, err = process.communicate(timeout=600)
    counts = json.loads(out)
    assert counts["done"] + counts["pruned"] + counts["failed"] == 18, err
    assert counts["done"] >= 1, err
    assert counts["pruned"] >= 6, err
    folder = tmp_path / "outputs" / "search-synthetic"
    latest = {(record.trial_key, record.epochs) for record in read_records(folder / "records.jsonl")}
    assert len(latest) == len(read_records(folder / "records.jsonl")), "an epoch was trained and recorded twice"
    # Each network at each rung is trained once, and once more where its worker was killed.
    trained = Counter((folder / "trainings.txt").read_text().split()[1::2])
    assert max(trained.values()) <= 2
    assert sum(trained.values()) - len(trained) <= 5
